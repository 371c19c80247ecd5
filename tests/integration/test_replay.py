"""`penstock replay` and `penstock diff` on a real broker: other versions, other topics, and nothing live touched."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.support.kafka import Publishing, read_all, settings
from tests.support.replays import POLICY, SECRET, Live, answer, prompt
from tests.support.stack import Stack, wait_until

from penstock.cli import window
from penstock.cli.replay_run import Run, folder_of
from penstock.cli.replays import MARKER, Replays
from penstock.cli.target import Target, settings_for
from penstock.contracts import topics
from penstock.runtime import kafka
from penstock.runtime import topics as broker_topics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

HOUR_MS = 3_600_000
PROMPTS = {"plain": "What is a river?", "told": SECRET, "both": "What is a lake?", "late": "What is a hill?"}
ANSWERS = {"plain": "Water that flows.", "told": "I see.", "both": SECRET, "late": "High ground."}


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
        wait_until(lambda: found.outcomes() == 9, "an outcome of each record", seconds=180)
        wait_until(lambda: at_rest(found), "the service at rest", seconds=180)
        yield stack
    finally:
        stack.stop()


def at_rest(found: Live) -> bool:
    """Whether the groups of lanes, retries and streams have their member each, and nothing is written any more.

    A transaction's marker stands in one partition before it does in the next.
    """
    seen = found.snapshot()
    members = seen["members"].values()
    time.sleep(0.5)
    return len(members) == 4 and all(len(ids) == 1 for ids in members) and found.snapshot() == seen


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
