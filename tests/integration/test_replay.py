"""`penstock replay` and `penstock diff` on a real broker: other versions, other topics, and nothing live touched."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.support.kafka import Publishing, committed_offsets, read_all, settings
from tests.support.stack import Stack, wait_until
from typer.testing import CliRunner, Result

from penstock.cli import window
from penstock.cli.main import app
from penstock.cli.replay_run import Run, folder_of
from penstock.cli.replays import MARKER, Replays
from penstock.cli.target import Target, settings_for
from penstock.contracts import topics
from penstock.contracts.events import (
    Completion,
    CompletionGenerated,
    Event,
    GenerationParameters,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    Source,
    StageTiming,
    Usage,
)
from penstock.contracts.headers import of_context
from penstock.runtime import kafka
from penstock.runtime import topics as broker_topics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

HOUR_MS = 3_600_000
SECRET = "the key is AKIA" + "Q3EGRZJ7WLPX2MTN"
POLICY = """
version: "strict"
detectors: [secrets, injection_phrases, encoded_payloads, invisible_text, abuse_classifier]
rules:
  prompt: &same
    secret: [{at_least: 0.7, action: block}]
    injection: []
    encoded_payload: []
    invisible_text: []
    abuse: []
  response: *same
"""
PROMPTS = {"plain": "What is a river?", "told": SECRET, "both": "What is a lake?", "late": "What is a hill?"}
ANSWERS = {"plain": "Water that flows.", "told": "I see.", "both": SECRET, "late": "High ground."}


def context(request_id: str, stages: tuple[str, ...], *, deadline_ms: int | None) -> RequestContext:
    return RequestContext(
        request_id=request_id,
        conversation_id=f"chat-{request_id}",
        tenant="acme" if request_id == "plain" else "other",
        deadline_ms=deadline_ms,
        submitted_ms=1,
        source=Source(topic=topics.REQUESTS, partition=0, offset=0),
        timings=tuple(StageTiming(stage=stage, queued_ms=1, processing_ms=1) for stage in stages),
    )


def prompt(request_id: str, text: str, *, deadline_ms: int | None = None) -> RequestAnonymized:
    return RequestAnonymized(
        context=context(request_id, ("preprocess", "anonymize"), deadline_ms=deadline_ms),
        prompt=(PromptPart(kind="text", text=text, role="user", message=0),),
        parameters=GenerationParameters(model="m", max_tokens=8),
    )


def answer(request_id: str, text: str, *, deadline_ms: int | None = None) -> CompletionGenerated:
    stages = ("preprocess", "anonymize", "safety", "inference")
    return CompletionGenerated(
        context=context(request_id, stages, deadline_ms=deadline_ms),
        completion=Completion(
            text=text, finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
        ),
        parameters=GenerationParameters(model="m", max_tokens=8),
    )


@dataclass
class Live:
    """An installation whose safety service runs on events that the test wrote, and the operator beside it."""

    stack: Stack
    folder: Path
    into: str = field(default_factory=lambda: f"r{uuid.uuid4().hex[:10]}.")

    def publish(self, *events: Event, timestamp_ms: int | None = None) -> None:
        producer = Producer(kafka.producer(settings(self.stack.bootstrap, self.stack.prefix), None))
        for event in events:
            headers: list[tuple[str, bytes]] = [
                *of_context(event.context, event.schema_ref()),
                ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                ("foreign", b"\xff"),
            ]
            producer.produce(
                f"{self.stack.prefix}{topics.topic_of(event)}",
                event.encode(),
                event.context.conversation_id.encode(),
                headers=headers,
                timestamp=timestamp_ms or time.time_ns() // 1_000_000,
            )
        assert producer.flush(60) == 0

    def outcomes(self) -> int:
        return len(self.stack.read(topics.SCREENED, topics.SCREENED_COMPLETIONS, topics.RESULTS))

    def policy(self, text: str = POLICY) -> str:
        path = self.folder / "strict.yaml"
        path.write_text(text)
        return str(path)

    @property
    def environment(self) -> dict[str, str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
        return {**base, "PENSTOCK_STATE_DIR": str(self.folder / "state")}

    def penstock(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Result:
        at = ["--bootstrap", self.stack.bootstrap]
        if arguments[0] == "replay":
            at += ["--prefix", self.stack.prefix]
        with patch.dict(os.environ, {**self.environment, **(environment or {})}, clear=True):
            return CliRunner().invoke(app, [*arguments, *at])

    def replay(self, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        done = self.penstock("replay", "--into", self.into, "--json", *arguments, environment=environment)
        assert done.exit_code == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def diff(self, *arguments: str) -> dict[str, Any]:
        done = self.penstock("diff", "--into", self.into, "--json", "--show", "100", *arguments)
        assert done.exit_code == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def snapshot(self) -> dict[str, Any]:
        """Everything live that a replay must leave as it is."""
        bootstrap, live = self.stack.bootstrap, self.stack.prefix
        admin = AdminClient({"bootstrap.servers": bootstrap})
        there = admin.list_topics(timeout=20).topics
        parts = [
            TopicPartition(name, number)
            for name, found in there.items()
            if name.startswith(live)
            for number in found.partitions
        ]
        ends = admin.list_offsets(
            {part: OffsetSpec.latest() for part in parts}, isolation_level=IsolationLevel.READ_UNCOMMITTED
        )
        groups = [one.group_id for one in admin.list_consumer_groups().result().valid if one.group_id.startswith(live)]
        members = {
            name: sorted(member.member_id for member in future.result().members)
            for name, future in admin.describe_consumer_groups(groups).items()
        }
        return {
            "ends": {(part.topic, part.partition): future.result().offset for part, future in ends.items()},
            "members": members,
            "committed": {
                topic: committed_offsets(bootstrap, live, "safety", topic)
                for topic in (topics.ANONYMIZED, topics.COMPLETIONS)
            },
        }

    def left(self, into: str | None = None) -> set[str]:
        """Topics and groups under a replay's prefix."""
        mine = into or self.into
        admin = AdminClient({"bootstrap.servers": self.stack.bootstrap})
        groups = {one.group_id for one in admin.list_consumer_groups().result().valid}
        return {name for name in {*admin.list_topics(timeout=20).topics, *groups} if name.startswith(mine)}


@pytest.fixture(scope="module")
def installed(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Real safety under the built-in policy, which has passed judgement on a handful of prompts and answers."""
    prefix, folder = f"t{uuid.uuid4().hex[:10]}.", tmp_path_factory.mktemp("live")
    broker_topics.apply(bootstrap, prefix, replication=1, partitions=2)
    stack = Stack(bootstrap, prefix, folder)
    found = Live(stack, folder)
    past_ms = time.time_ns() // 1_000_000 - 60_000
    found.publish(prompt("outside", SECRET), timestamp_ms=time.time_ns() // 1_000_000 - HOUR_MS)
    for request_id, text in PROMPTS.items():
        found.publish(prompt(request_id, text, deadline_ms=past_ms if request_id == "late" else None))
    for request_id, text in ANSWERS.items():
        found.publish(answer(request_id, text))
    try:
        stack.launch("safety")
        stack.wait_ready(["safety"])
        wait_until(lambda: found.outcomes() == 9, "an outcome of each record", seconds=60)
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def live(installed: Stack, tmp_path: Path) -> Live:
    """The installation, which no replay changes, and an operator with a replay prefix of the test's own."""
    return Live(installed, tmp_path)


def changed(said: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Topic and request id of what is not the same -> what became of it, live and replayed."""
    return {
        (one["topic"], one["request_id"]): f"{one['live']['status']} {one['replay']['status']}"
        for one in said["examples"]
    }


EXPECTED = {
    (topics.ANONYMIZED, "told"): "passed blocked",
    (topics.COMPLETIONS, "both"): "passed blocked",
    (topics.ANONYMIZED, "late"): "expired passed",
}


def test_a_stricter_policy_changes_exactly_what_it_should_and_nothing_live(live: Live) -> None:
    before = live.snapshot()
    said = live.replay("--from", "-30m", "--stage", "safety", "--policy", live.policy())
    assert said["copied"] == {topics.ANONYMIZED: 4, topics.COMPLETIONS: 4}
    assert said["outcomes"] == {"passed": 6, "blocked": 2}
    found = live.diff()
    assert changed(found) == EXPECTED
    assert (found["records"], found["same"], found["changed"]) == (8, 5, 3)
    assert found["labels"]["prompt secret block"] == {"live": 0, "replay": 1}
    assert found["labels"]["response secret redact"] == {"live": 1, "replay": 0}
    assert list(found["versions"]) == ["policy"]
    assert SECRET not in json.dumps(found)
    assert live.snapshot() == before
    # for people: a table and examples without texts, then the figures as JSON; a status for programs
    shown = live.penstock("diff", "--into", live.into, "--show", "1", "--exit-code")
    assert shown.exit_code == 3, shown.stderr
    assert "passed → blocked" in shown.stdout
    assert SECRET not in shown.stdout
    assert json.loads(shown.stdout.splitlines()[-1])["changed"] == 3
    texts = {one["request_id"]: one["live"].get("text") for one in live.diff("--text")["examples"]}
    assert texts["both"] == "the key is [REDACTED:secret]"


def test_the_comparison_of_what_is_live_notices_one_record(live: Live) -> None:
    before = live.snapshot()
    producer = Producer(kafka.producer(settings(live.stack.bootstrap, live.stack.prefix), None))
    producer.produce(f"{live.stack.prefix}{topics.TOKENS}", b"{}")
    assert producer.flush(60) == 0
    assert live.snapshot() != before


def test_copies_are_the_originals_without_deadline_and_trace(live: Live) -> None:
    live.replay("--from", "-30m", "--stage", "safety", "--tenant", "other", "--limit", "2")
    originals = {
        f"{one.topic()}/{one.partition()}/{one.offset()}": one
        for one in live.stack.read(topics.ANONYMIZED, topics.COMPLETIONS)
    }
    copies = read_all(live.stack.bootstrap, live.into, topics.ANONYMIZED, topics.COMPLETIONS)
    assert len(copies) == 4
    for copy in copies:
        headers = dict(copy.headers() or [])
        original = originals[headers.pop("replay-of").decode()]
        expected = {
            name: value
            for name, value in original.headers() or []
            if name not in ("deadline", "attempt", "traceparent", "tracestate")
        }
        assert (headers, headers["tenant"]) == (expected, b"other")
        assert (copy.key(), copy.partition()) == (original.key(), original.partition())
        event, was = json.loads(copy.value()), json.loads(original.value())
        was["context"].pop("deadline_ms", None)
        assert event == was


def test_answers_alone_are_screened_again(live: Live) -> None:
    said = live.replay("--from", "-30m", "--stage", "safety", "--input", topics.COMPLETIONS, "--policy", live.policy())
    assert said["copied"] == {topics.COMPLETIONS: 4}
    assert set(changed(live.diff())) == {(topics.COMPLETIONS, "both")}
    assert read_all(live.stack.bootstrap, live.into, topics.ANONYMIZED, topics.SCREENED) == []


def test_removing_takes_what_is_the_replays_and_nothing_else(live: Live) -> None:
    live.replay("--from", "-30m", "--stage", "safety")
    assert live.diff()["same"] == 7  # the expired one passes
    before = live.snapshot()
    assert f"{live.into}penstock-safety" in live.left()
    declined = live.penstock("replay", "--remove", live.into)  # no answer is a no
    assert declined.exit_code == 1
    assert live.left() >= {f"{live.into}{MARKER}", f"{live.into}{topics.RESULTS}"}
    done = live.penstock("replay", "--remove", live.into, "--yes")
    assert done.exit_code == 0, done.stderr
    assert live.left() == set()
    assert live.snapshot() == before
    again = live.penstock("replay", "--remove", live.into, "--yes")
    assert again.exit_code == 1
    assert "no replay under the prefix" in again.stderr


def test_what_would_touch_something_live_is_refused(live: Live) -> None:
    start = ("replay", "--from", "-30m", "--stage", "safety")
    before = live.snapshot()
    own = live.penstock(*start, "--into", live.stack.prefix)
    assert own.exit_code == 2
    assert "prefix of the live topics" in own.stderr
    other = f"t{uuid.uuid4().hex[:10]}."
    broker_topics.apply(live.stack.bootstrap, other, replication=1, partitions=1)
    for extra in ((), ("--overwrite", "--yes")):
        taken = live.penstock(*start, "--into", other, *extra)
        assert taken.exit_code == 1
        assert "no replay made it" in taken.stderr
    removed = live.penstock("replay", "--remove", other, "--yes")
    assert removed.exit_code == 1
    assert len(live.left(other)) == len(topics.load_topics())
    for setting, sentence in (
        (f"topic_prefix={live.stack.prefix}", "not for a replay to set"),
        ("safety_polcy=x", "is not a setting of this service"),
        ("safety_threads=0", "SAFETY_THREADS"),
    ):
        refused = live.penstock(*start, "--into", live.into, "--set", setting)
        assert refused.exit_code != 0
        assert sentence in " ".join(refused.stderr.split())
    bad = live.penstock(*start, "--into", live.into, "--policy", live.policy(POLICY.replace("secret:", "secrt:")))
    assert bad.exit_code == 1
    assert "secrt" in bad.stderr
    assert live.left() == set()
    assert live.snapshot() == before


class Interrupt:
    """Progress that is interrupted at its first report of one thing."""

    def __init__(self, at: str) -> None:
        self._at = at

    @contextmanager
    def __call__(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
        def tell(_done: int, _of: int | None) -> None:
            if what == self._at:
                raise KeyboardInterrupt

        yield tell


@pytest.mark.parametrize("at", ["copying", "replaying"])
def test_an_interrupted_replay_goes_on_and_does_nothing_twice(
    live: Live, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    for name, value in live.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(window, "_CHUNK_RECORDS", 1)
    replays = Replays(Target(settings_for(live.stack.bootstrap, live.stack.prefix)), live.into)
    live.replay("--from", "-30m", "--stage", "safety", "--policy", live.policy())
    manifest = replays.demand()
    assert live.penstock("replay", "--remove", live.into, "--yes").exit_code == 0
    replays.make(manifest)
    with pytest.raises(KeyboardInterrupt):
        Run(replays, manifest).run(Interrupt(at))
    copied = read_all(live.stack.bootstrap, live.into, topics.ANONYMIZED, topics.COMPLETIONS)
    assert len(copied) == 8 if at == "replaying" else 0 < len(copied) < 8
    assert folder_of(live.into).load() is None  # its process has been ended

    begun = live.penstock("replay", "--into", live.into, "--from", "-30m", "--stage", "safety")
    assert begun.exit_code == 1
    assert "--resume" in begun.stderr
    said = live.replay("--resume")
    assert sum(said["copied"].values()) == 8
    assert said["outcomes"] == {"passed": 6, "blocked": 2}
    copies = read_all(live.stack.bootstrap, live.into, topics.ANONYMIZED, topics.COMPLETIONS)
    assert len({dict(one.headers() or [])["replay-of"] for one in copies}) == len(copies) == 8
    assert changed(live.diff()) == EXPECTED
    if at == "replaying":
        # a replay that is done stays as it is; another is begun in its place
        assert live.replay("--resume")["outcomes"] == {"passed": 6, "blocked": 2}
        assert live.replay("--overwrite", "--yes", "--from", "-30m", "--stage", "safety")["outcomes"] == {"passed": 8}


@pytest.mark.parametrize("stage", ["preprocess", "anonymize", "safety", "inference", "postprocess"])
def test_the_same_versions_make_the_same_of_every_stage(stack: Stack, tmp_path: Path, stage: str) -> None:
    operator = Live(stack, tmp_path)
    began_ms = time.time_ns() // 1_000_000
    bodies = [
        {"messages": [{"role": "user", "content": "What is Kafka?"}], "max_tokens": 6},
        {"messages": [{"role": "user", "content": "Write to ann@example.com"}], "max_tokens": 6},
        {"messages": [], "max_tokens": 6},
    ]
    key = uuid.uuid4().hex.encode()
    stack.wait_results(stack.send(Publishing(json.dumps(body).encode(), key=key) for body in bodies))
    from_iso = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(began_ms // 1000))}.{began_ms % 1000:03d}Z"
    vault = {"PENSTOCK_VAULT_KEYS": stack.vault_key}
    said = operator.replay("--from", from_iso, "--stage", stage, environment=vault)
    found = operator.diff()
    expected = 3 if stage == "preprocess" else 4 if stage == "safety" else 2
    assert sum(said["copied"].values()) == found["records"] == found["same"] == expected, found["examples"]
    assert found["versions"] == {}
    outcomes = {"passed": 2, "failed": 1} if stage == "preprocess" else None
    assert outcomes is None or said["outcomes"] == outcomes
