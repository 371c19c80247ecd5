"""Cancelling on a real broker: before any stage, in the middle of a generation, a conversation, a tenant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.integration.test_unordered import Held
from tests.support.generation import TINY, Sink, event_of
from tests.support.kafka import Publishing
from tests.support.stack import SERVICES, Stack, wait_until
from tests.support.toy import ids_of
from tests.support.unordered import UnorderedHarness

from penstock.cli.cancelling import publish
from penstock.cli.target import Target
from penstock.contracts import headers as header_names
from penstock.contracts.control import Cancel
from penstock.contracts.events import RequestContext, RequestScreened
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import COMPLETIONS, CONTROL, DEAD_LETTERS, RESULTS, SCREENED
from penstock_inference.backend import Piece
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits
from penstock_inference.stage import InferenceStage

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

BODY = json.dumps({"messages": [{"role": "user", "content": "What is a river?"}], "max_tokens": 8}).encode()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Paced(LocalBackend):
    """The real engine, each step slow enough that an answer takes a while, and which requests each step ran."""

    pace_s = 0.0

    def step(self) -> Sequence[Piece]:
        time.sleep(self.pace_s)
        pieces = super().step()
        self.ran = [*getattr(self, "ran", []), frozenset(piece.key for piece in pieces)]
        return pieces


class Generating(InferenceStage):
    """Notes how many steps had begun when a job was given up."""

    def __init__(self, backend: Paced) -> None:
        super().__init__(backend, Sink(), release="1", queue=4)
        self.steps_at_cancel: list[int] = []
        self.backend = backend

    def cancel(self, job: Any) -> None:
        self.steps_at_cancel.append(len(self.backend.ran))
        super().cancel(job)


@pytest.fixture
def harness(bootstrap: str, prefix: str, tmp_path: Path) -> UnorderedHarness:
    return UnorderedHarness(bootstrap, prefix, tmp_path)


def stage_of(rows: int, pace_s: float) -> Generating:
    backend = Paced.load(TINY, Limits(rows=rows))
    assert isinstance(backend, Paced)
    backend.pace_s, backend.ran = pace_s, []
    backend._eos_ids = frozenset()  # an answer is as long as it may be
    return Generating(backend)


def screened(harness: UnorderedHarness, *events: RequestScreened) -> None:
    producer = Producer({"bootstrap.servers": harness.settings.kafka_bootstrap_servers})
    for event in events:
        producer.produce(
            harness.names.topic(SCREENED),
            key=event.context.request_id.encode(),
            value=event.encode(),
            headers=header_names.of_context(event.context, event.schema_ref()),
        )
    assert producer.flush(60) == 0


def cancelled(harness: UnorderedHarness, command: Cancel) -> None:
    publish(Target(harness.settings), {command.key: command})


def finished(harness: UnorderedHarness, expected: int) -> list[RequestFinished]:
    return [RequestFinished.model_validate_json(message.value()) for message in harness.read(RESULTS, expected)]


def test_in_the_middle_of_a_generation_and_the_row_is_free_within_one_step(harness: UnorderedHarness) -> None:
    stage = stage_of(rows=1, pace_s=0.2)
    with harness.calling(stage):
        screened(harness, event_of("long", max_tokens=240))
        wait_until(lambda: len(stage.backend.ran) > 3, "tokens of the long answer")
        screened(harness, event_of("next", max_tokens=3))
        cancelled(harness, Cancel(request_id="long", issued_ms=now_ms()))
        (result,) = finished(harness, 1)
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["next"])
        assert len(finished(harness, 1)) == 1
    assert (result.id, result.status) == ("long", "cancelled")
    assert harness.read(DEAD_LETTERS, 0) == []
    (at,) = stage.steps_at_cancel
    ran = stage.backend.ran
    # the step that had begun may still run it; the row is the next one's right after
    long = next(iter(ran[0]))
    assert [long in keys for keys in ran[at + 1 :]] == [False] * len(ran[at + 1 :])


def test_a_deadline_in_the_middle_of_a_generation_frees_the_row(harness: UnorderedHarness) -> None:
    stage = stage_of(rows=1, pace_s=0.2)
    with harness.calling(stage):
        screened(harness, event_of("warm", max_tokens=1))
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["warm"])
        late = []
        for seconds in (4, 8, 16, 32):
            late.append(f"late{seconds}")
            screened(harness, event_of(late[-1], max_tokens=240, deadline_ms=now_ms() + seconds * 1000))
            results = finished(harness, len(late))
            if stage.steps_at_cancel:
                break  # else the call had not begun: a machine so busy shows nothing, so once more
        screened(harness, event_of("next", max_tokens=2))
        assert ids_of(harness.read(COMPLETIONS, 2)) == Counter(["warm", "next"])
        assert len(finished(harness, len(late))) == len(late)
    assert {result.id: result.status for result in results} == dict.fromkeys(late, "expired")
    assert len(stage.steps_at_cancel) == 1
    assert len(stage.backend.ran) < 240


def of_tenant(request_id: str, conversation: str, tenant: str, sent_ms: int) -> RequestScreened:
    event = event_of(request_id)
    changes = {"conversation_id": conversation, "tenant": tenant, "submitted_ms": sent_ms}
    context = RequestContext.model_validate(event.context.model_dump() | changes)
    return event.model_copy(update={"context": context})


@pytest.mark.parametrize("scope", ["conversation", "tenant"])
def test_what_was_sent_until_now_ends_wherever_it_is_and_later_work_passes(
    harness: UnorderedHarness, scope: str
) -> None:
    class Small(Held):
        """Two run, the others wait."""

        def room(self) -> int:
            return 2 - len(self.jobs)

        def cancel(self, job: Any) -> None:
            super().cancel(job)
            del self.jobs[job.inbound.event.context.request_id]

        def finish(self, request_id: str) -> None:
            super().finish(request_id)
            del self.jobs[request_id]

    sent = now_ms()
    stage = Small()
    doomed = [f"doomed-{number}" for number in range(6)]
    with harness.calling(stage) as (_, metrics):
        screened(harness, *(of_tenant(one, "chat", "acme", sent) for one in doomed))
        waiting = ("penstock_calls_waiting", {"stage": "inference"})
        wait_until(lambda: metrics.registry.get_sample_value(*waiting) == 4, "two run and four wait")
        given = {"conversation_id": "chat"} if scope == "conversation" else {"tenant": "acme"}
        cancelled(harness, Cancel.model_validate({**given, "issued_ms": sent, "reason": "over"}))
        results = finished(harness, 6)
        assert len(stage.cancelled) == 2
        # what comes late and was sent before is stopped; what was sent later, and what is another's, is not
        screened(harness, of_tenant("straggler", "chat", "acme", sent - 10))
        results = finished(harness, 7)
        screened(harness, of_tenant("later", "chat", "acme", sent + 1), of_tenant("other", "chat-2", "else", sent - 10))
        wait_until(lambda: stage.jobs.keys() == {"later", "other"}, "later work")
        stage.finish("later")
        stage.finish("other")
        assert ids_of(harness.read(COMPLETIONS, 2)) == Counter(["later", "other"])
    results = finished(harness, 7)
    assert Counter((result.id, result.status) for result in results) == Counter(
        (one, "cancelled") for one in [*doomed, "straggler"]
    )
    assert {result.error.message for result in results if result.error} == {f"cancelled by its {scope}: over"}
    assert harness.read(DEAD_LETTERS, 0) == []


def test_a_record_that_is_no_command_stops_nothing(harness: UnorderedHarness) -> None:
    producer = Producer({"bootstrap.servers": harness.settings.kafka_bootstrap_servers})
    for value in (b"\xff", b"{}", b'{"tenant": "acme", "request_id": "r", "issued_ms": 1}', None):
        producer.produce(harness.names.topic(CONTROL), key=b"tenant/acme", value=value)
    newer = Cancel(request_id="r0", issued_ms=now_ms())
    producer.produce(
        harness.names.topic(CONTROL), key=b"k", value=newer.encode(), headers={"schema": "penstock.cancel/9"}
    )
    assert producer.flush(60) == 0
    cancelled(harness, Cancel(request_id="r1", issued_ms=now_ms()))
    stage = Held()
    with harness.calling(stage):
        screened(harness, event_of("r0"), event_of("r1"))
        (result,) = finished(harness, 1)
        wait_until(lambda: "r0" in stage.jobs, "what is not cancelled")
        stage.finish("r0")
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["r0"])
    assert (result.id, result.status) == ("r1", "cancelled")


class Operator:
    """Runs `penstock cancel` on the stack's topics."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._at = ("--bootstrap", stack.bootstrap, "--prefix", stack.prefix)
        base = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
        self._environment = {**base, "PENSTOCK_STATE_DIR": str(folder / "state")}

    def cancel(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock.cli", "cancel", *arguments, *self._at]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=self._environment)

    def listed(self) -> list[dict[str, Any]]:
        done = self.cancel("--list", "--json")
        assert done.returncode == 0, done.stderr
        listed: list[dict[str, Any]] = json.loads(done.stdout)
        return listed


def in_force(stack: Stack, service: str) -> int:
    found = re.search(r"^penstock_cancellations{[^}]*} ([0-9.]+)$", stack.metrics(service), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def test_the_command_before_any_stage_and_taken_back(stack: Stack, tmp_path: Path) -> None:
    operator = Operator(stack, tmp_path)
    known = {service: in_force(stack, service) for service in SERVICES}
    request_id, spared = f"never-{uuid.uuid4().hex}", f"spared-{uuid.uuid4().hex}"

    done = operator.cancel(request_id, spared, "--reason", "too late", "--json")
    assert done.returncode == 0, done.stderr
    assert [(one["scope"], one["name"]) for one in json.loads(done.stdout)] == [
        ("request", request_id),
        ("request", spared),
    ]
    assert {request_id, spared} <= {one.get("request_id") for one in operator.listed()}
    assert operator.cancel(spared, "--undo").returncode == 0
    listed = {one.get("request_id"): one.get("reason") for one in operator.listed()}
    assert listed[request_id] == "too late"
    assert spared not in listed
    for service in SERVICES:
        wait_until(lambda service=service: in_force(stack, service) == known[service] + 1, "all services know")

    headers = [[("request-id", one.encode())] for one in (request_id, spared)]
    places = stack.send([Publishing(BODY, each) for each in headers])
    results = stack.wait_results(places)
    stopped, passed = (results[place] for place in places)
    assert (stopped.status, passed.status) == ("cancelled", "completed")
    assert stopped.error is not None
    assert (stopped.error.code, stopped.error.stage) == ("cancelled", "preprocess")
    assert places[0] not in stack.dead_letters()

    waited = operator.cancel(request_id, "--wait", "--timeout", "60s")
    assert waited.returncode == 0, waited.stderr
    assert "cancelled" in waited.stdout
    late = operator.cancel(spared, "--wait", "--json")
    assert json.loads(late.stdout)[0]["status"] == "completed"  # what has ended stays as it is
    assert [result.status for result in stack.results() if result.id == request_id] == ["cancelled"]
