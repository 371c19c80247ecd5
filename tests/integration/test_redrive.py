"""`penstock dlq redrive` against the real services: accepted once, marked, traced anew, the letter kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import Message
from tests.support.kafka import Publishing, Slot, place_of
from tests.support.otlp import OtlpReceiver
from tests.support.stack import Stack, wait_until
from tests.support.trees import Span

from penstock.cli.errors import CommandError
from penstock.cli.redrive import Redrive, Wish, select
from penstock.cli.target import Target, settings_for
from penstock.contracts import topics
from penstock.contracts.results import DeadLetter, Redriven, RequestFinished

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

BODY = json.dumps({"model": "gpt-99", "messages": [{"role": "user", "content": "What is a river?"}]}).encode()


class Operator:
    """Runs `penstock dlq` on the stack's topics."""

    def __init__(self, stack: Stack, otlp: OtlpReceiver, folder: Path) -> None:
        self._at = ("--bootstrap", stack.bootstrap, "--prefix", stack.prefix)
        base = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
        self._environment = {**base, **otlp.environment, "PENSTOCK_STATE_DIR": str(folder / "state")}

    def dlq(
        self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock.cli", "dlq", *arguments, *self._at]
        variables = self._environment | dict(environment or {})
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=120, env=variables
        )


@pytest.fixture
def operator(stack: Stack, otlp: OtlpReceiver, tmp_path: Path) -> Operator:
    return Operator(stack, otlp, tmp_path)


def letters(stack: Stack, request_id: str) -> list[tuple[DeadLetter, Message]]:
    """The letters of a request, oldest first."""
    found = []
    for message in stack.read(topics.DEAD_LETTERS):
        headers = dict(message.headers() or [])
        if "dead-letter" in headers:
            letter = DeadLetter.model_validate_json(headers["dead-letter"])
            if letter.request_id == request_id:
                found.append((letter, message))
    return sorted(found, key=lambda one: (one[0].failed_ms, one[1].offset()))


def markers(stack: Stack, key: bytes) -> list[Redriven]:
    return [
        Redriven.model_validate_json(dict(message.headers() or [])["redriven"])
        for message in stack.read(topics.DEAD_LETTERS)
        if message.key() == key and "dead-letter" not in dict(message.headers() or [])
    ]


def results_of(stack: Stack, request_id: str) -> list[RequestFinished]:
    return [result for result in stack.results() if result.id == request_id]


def fail(stack: Stack, request_id: str, key: bytes) -> Message:
    """Publish a request that is refused; its letter's record."""
    deadline = str(time.time_ns() // 1_000_000 + 600_000).encode()
    headers = [("request-id", request_id.encode()), ("deadline", deadline), ("foreign", b"\xff")]
    (place,) = stack.send([Publishing(BODY, headers, key=key)])
    assert stack.wait_results([place])[place].status == "failed"
    ((_, message),) = letters(stack, request_id)
    return message


def test_a_letter_is_redriven_once_and_a_second_time_only_as_a_duplicate(
    stack: Stack, otlp: OtlpReceiver, operator: Operator
) -> None:
    request_id, key = f"again-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    original = fail(stack, request_id, key)
    place = f"{original.partition()}:{original.offset()}"
    ((before, _),) = letters(stack, request_id)

    dry = operator.dlq("redrive", place, "--dry-run", "--json")
    assert json.loads(dry.stdout)["redriven"] == [{"place": place, "request_id": request_id, "to": topics.REQUESTS}]
    assert markers(stack, key) == []

    # accepted as a new record: its own result, its own letter
    done = operator.dlq("redrive", place, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["deadlines_dropped"] == 1
    (sent,) = said["redriven"]
    wait_until(lambda: len(results_of(stack, request_id)) == 2, "the redriven record's result")
    first, second = results_of(stack, request_id)
    assert len({place_of(first), place_of(second)}) == 2
    assert {one.error.code for one in (first, second) if one.error is not None} == {"unknown_model"}
    wait_until(lambda: len(letters(stack, request_id)) == 2, "the redriven record's letter")
    after, record = letters(stack, request_id)[1]
    source = f"{before.source.topic}/{before.source.partition}/{before.source.offset}"
    headers = dict(record.headers() or [])
    assert (headers["redrive-of"], headers["attempt"]) == (source.encode(), b"1")
    assert (headers["foreign"], headers["request-id"]) == (b"\xff", request_id.encode())
    assert "deadline" not in headers
    assert (record.value(), record.key()) == (BODY, key)

    # a new trace, linked with the old one
    assert after.trace_id == sent["trace_id"] != before.trace_id
    (root,) = [span for span in otlp.wait(sent["trace_id"], 4) if span.parent_id is None]
    assert_linked(root, before)

    # marked, and listed as such; refused the next time; nothing written by the refusal
    assert [mark.dead_letter for mark in markers(stack, key)] == [place.replace(":", "/")]
    assert_shown(operator, place, f"{record.partition()}:{record.offset()}", before.source.topic)
    refused = operator.dlq("redrive", place)
    assert refused.returncode == 1
    assert "sent again before" in refused.stderr
    assert len(markers(stack, key)) == 1

    # once more by force: the place it names was left, so it is a duplicate and has no result
    forced = operator.dlq("redrive", place, "--again")
    assert forced.returncode == 0, forced.stderr
    wait_until(lambda: len(letters(stack, request_id)) == 3, "the duplicate's letter")
    duplicate, there = letters(stack, request_id)[2]
    assert duplicate.error.code == "duplicate_request"
    assert len(results_of(stack, request_id)) == 2
    never = operator.dlq("redrive", f"{there.partition()}:{there.offset()}", "--again")
    assert never.returncode == 1
    assert "first record's result stands" in never.stderr

    # the newest letter can go on from where it stands
    onward = operator.dlq("redrive", f"{record.partition()}:{record.offset()}")
    assert onward.returncode == 0, onward.stderr
    wait_until(lambda: len(results_of(stack, request_id)) == 3, "the third result")

    kept = next(message for _, message in letters(stack, request_id) if message.offset() == original.offset())
    assert (kept.value(), kept.key(), kept.headers()) == (original.value(), original.key(), original.headers())
    assert Slot(before.source.topic, before.source.partition, before.source.offset) in stack.dead_letters()


def test_an_edited_letter_completes_and_keeps_its_bytes(stack: Stack, operator: Operator) -> None:
    request_id, key = f"edited-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    original = fail(stack, request_id, key)
    place = f"{original.partition()}:{original.offset()}"

    # what the schema refuses is not sent, nor what was left as it was
    for editor in ("sed -i s/content/contents/", "true"):
        refused = operator.dlq("redrive", place, "--edit", stdin="n\n", environment={"EDITOR": editor})
        assert refused.returncode == 1
        assert markers(stack, key) == []

    mended = {"EDITOR": """sed -i 's/"model": "gpt-99", //'"""}
    done = operator.dlq("redrive", place, "--edit", environment=mended)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(results_of(stack, request_id)) == 2, "the edited record's result", 90)
    assert {result.status for result in results_of(stack, request_id)} == {"failed", "completed"}
    assert [mark.edited for mark in markers(stack, key)] == [True]
    ((_, kept),) = letters(stack, request_id)
    assert kept.value() == BODY


def assert_shown(operator: Operator, place: str, newer: str, to: str) -> None:
    """Listed and shown as sent again; the marker itself is no letter."""
    listed = {row["place"]: row for row in json.loads(operator.dlq("list", "--limit", "100000", "--json").stdout)}
    assert [mark["to"] for mark in listed[place]["redriven"]] == [to]
    assert listed[newer]["redriven"] == []
    assert len(json.loads(operator.dlq("list", "--limit", "1", "--json").stdout)) == 1
    shown = operator.dlq("show", place)
    assert "redriven  20" in shown.stdout, shown.stderr
    assert operator.dlq("show", place, "--body").stdout.encode() == BODY


def assert_linked(root: Span, before: DeadLetter) -> None:
    assert root.name == "redrive llm.requests"
    assert root.links == ((before.trace_id, before.span_id),)
    assert root.attributes["penstock.redrive.trace_id"] == before.trace_id


def test_of_two_at_once_the_later_one_goes_on(stack: Stack, operator: Operator) -> None:
    request_id, key = f"fenced-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    original = fail(stack, request_id, key)
    target, wish = Target(settings_for(stack.bootstrap, stack.prefix)), Wish(which=(request_id,))
    earlier = Redrive(target)
    chosen = select(target, wish, time.time_ns() // 1_000_000)
    later = operator.dlq("redrive", f"{original.partition()}:{original.offset()}")
    assert later.returncode == 0, later.stderr
    with pytest.raises(CommandError, match=r"fenced.*nothing was sent"):
        earlier.send(chosen, wish)
    assert len(markers(stack, key)) == 1
    wait_until(lambda: len(results_of(stack, request_id)) == 2, "the redriven record's result")


def test_many_are_asked_for_and_those_done_are_left(stack: Stack, operator: Operator) -> None:
    ids = [f"many-{uuid.uuid4().hex}" for _ in range(2)]
    key = uuid.uuid4().hex.encode()
    for request_id in ids:
        fail(stack, request_id, key)
    declined = operator.dlq("redrive", *ids, stdin="n\n")
    assert declined.returncode == 1
    assert "send 2 dead letters again?" in declined.stderr
    assert markers(stack, key) == []
    done = operator.dlq("redrive", *ids, "--yes")
    assert done.returncode == 0, done.stderr
    assert "2 sent again: unknown_model in preprocess (2)" in done.stdout
    for request_id in ids:
        wait_until(lambda which=request_id: len(results_of(stack, which)) == 2, "a result of each")  # type: ignore[misc]  # a lambda with a default has no inferred type
    chosen = json.loads(operator.dlq("redrive", "--filter", "code=unknown_model", "--dry-run", "--json").stdout)
    assert chosen["skipped"]["redriven before"] >= 2
    assert len([one for one in chosen["redriven"] if one["request_id"] in ids]) == 2


def test_every_record_has_one_result_or_is_a_duplicate(stack: Stack) -> None:
    """After the tests above: what was redriven counts like any other record."""
    requests = stack.read(*topics.siblings(topics.REQUESTS))
    published = [Slot(one.topic(), one.partition(), one.offset()) for one in requests]
    duplicates = [
        place for place, (letter, _) in stack.dead_letters().items() if letter.error.code == "duplicate_request"
    ]
    assert any(dict(one.headers() or []).get("redrive-of") for one in requests)
    assert sorted(published) == sorted([*map(place_of, stack.results()), *duplicates])
