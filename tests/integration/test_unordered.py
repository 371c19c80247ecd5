"""Slow records that finish in any order, on a real broker."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from confluent_kafka import Producer
from tests.support.slow import Slow, answer_to
from tests.support.stack import wait_until
from tests.support.toy import ids_of
from tests.support.unordered import UnorderedHarness

from penstock.contracts.delays import Delayed
from penstock.contracts.errors import BackendUnavailable, RateLimited
from penstock.contracts.events import RequestScreened
from penstock.contracts.results import RequestFinished, Status
from penstock.contracts.topics import COMPLETIONS, RESULTS, RETRY_INFERENCE, SCREENED
from penstock.runtime import kafka
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.stage import Inbound, Job

pytestmark = pytest.mark.broker


@pytest.fixture
def harness(bootstrap: str, prefix: str, tmp_path: Path) -> UnorderedHarness:
    return UnorderedHarness(bootstrap, prefix, tmp_path)


def slow(harness: UnorderedHarness, longest_s: float = 0.3, capacity: int = 200) -> Slow:
    return Slow(harness.log, shortest_s=0.0, longest_s=longest_s, capacity=capacity)


class Held:
    """A stage whose calls end when the test says so."""

    name = "inference"
    versions: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.begun: Counter[str] = Counter()
        self.cancelled: list[str] = []

    def room(self) -> int:
        return 1_000

    def start(self, job: Job) -> None:
        request_id = job.inbound.expect(RequestScreened).context.request_id
        self.jobs[request_id] = job
        self.begun[request_id] += 1

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job.inbound.expect(RequestScreened).context.request_id)

    def ended(self, inbound: Inbound, status: Status) -> None:
        """Nothing was streamed."""

    def close(self) -> None:
        self.jobs.clear()

    def finish(self, request_id: str) -> None:
        job = self.jobs[request_id]
        job.finish(answer_to(job.inbound.expect(RequestScreened)))

    def finish_all(self) -> int:
        """Finish what has begun, again where it has been; how many there are."""
        for request_id in list(self.jobs):
            self.finish(request_id)
        return len(self.jobs)


def count(metrics: StageMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, {"stage": "inference", **labels}) or 0.0


def test_every_record_is_answered_once_in_whatever_order(harness: UnorderedHarness) -> None:
    ids = [f"r{number}" for number in range(800)]
    harness.screened(ids)
    with harness.calling(slow(harness)):
        answered = harness.read(COMPLETIONS, len(ids))
    assert ids_of(answered) == Counter(ids)
    assert harness.log.counts("ended") == Counter(ids)


def test_what_is_finished_ahead_of_a_stuck_record_is_out_and_is_skipped_after_a_restart(
    harness: UnorderedHarness,
) -> None:
    ids = [f"r{number}" for number in range(50)]
    harness.screened(ids, partition=0)
    first = Held()
    with harness.calling(first):
        wait_until(lambda: len(first.jobs) == 50, "calls")
        for request_id in ids[1:40]:
            first.finish(request_id)
        assert ids_of(harness.read(COMPLETIONS, 39)) == Counter(ids[1:40])  # r0 holds nothing up
    second = Held()
    with harness.calling(second) as (_, metrics):
        wait_until(lambda: len(second.jobs) == 11, "calls")
        for request_id in second.jobs:
            second.finish(request_id)
        assert ids_of(harness.read(COMPLETIONS, 50)) == Counter(ids)
        assert count(metrics, "penstock_records_skipped_total") == 39
    assert set(second.begun) == {ids[0], *ids[40:]}


def test_an_answer_that_was_not_committed_is_not_paid_for_twice(harness: UnorderedHarness) -> None:
    harness.screened(["paid", "begun"], partition=0)
    first = Held()
    with harness.calling(first) as (worker, _):
        wait_until(lambda: len(first.jobs) == 2, "calls")
        worker._uncommitted._not_before = time.monotonic() + 3600  # as if every transaction was aborted
        first.finish("paid")
    second = Held()
    with harness.calling(second) as (_, metrics):
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["paid"])
        wait_until(lambda: "begun" in second.jobs, "calls")
        second.finish("begun")
        assert ids_of(harness.read(COMPLETIONS, 2)) == Counter(["paid", "begun"])
        assert count(metrics, "penstock_calls_recovered_total", kind="answered") == 1
        assert count(metrics, "penstock_calls_recovered_total", kind="repeated") == 1
    assert second.begun == Counter(["begun"])


def test_records_of_a_key_run_one_after_another(harness: UnorderedHarness) -> None:
    harness.screened([f"a{number}" for number in range(4)], conversation="a")
    harness.screened(["b"])
    stage = Held()
    with harness.calling(stage):
        wait_until(lambda: len(stage.jobs) == 2, "calls")
        for number in range(4):
            assert f"a{number + 1}" not in stage.jobs
            stage.finish(f"a{number}")
            if number < 3:
                wait_until(lambda number=number: f"a{number + 1}" in stage.jobs, "calls")
        stage.finish("b")
        messages = harness.read(COMPLETIONS, 5)
    mine = [message for message in messages if message.key() == b"a"]
    assert list(ids_of(mine)) == ["a0", "a1", "a2", "a3"]


def test_a_deadline_that_passes_in_a_call_ends_it(harness: UnorderedHarness) -> None:
    stage = Held()
    with harness.calling(stage):
        harness.screened(["first"])  # joining the group may take longer than the deadline
        wait_until(lambda: "first" in stage.jobs, "a call")
        stage.finish("first")
        harness.screened(["late"], deadline_ms=time.time_ns() // 1_000_000 + 4_000)
        wait_until(lambda: "late" in stage.jobs, "calls")
        (message,) = harness.read(RESULTS, 1)
        assert RequestFinished.model_validate_json(message.value()).status == "expired"
        assert stage.cancelled == ["late"]
        stage.finish("late")  # too late
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["first"])


def test_a_refused_call_is_tried_again_and_ends_as_a_dead_letter(harness: UnorderedHarness) -> None:
    class Refusing(Held):
        def start(self, job: Job) -> None:
            super().start(job)
            request_id = job.inbound.expect(RequestScreened).context.request_id
            if request_id == "never" or self.begun[request_id] < 3:
                job.finish(BackendUnavailable("the model does not answer"))
            else:
                self.finish(request_id)

    harness.screened(["third", "never"])
    stage = Refusing()
    with harness.calling(stage):
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["third"])
        (message,) = harness.read(RESULTS, 1)
    result = RequestFinished.model_validate_json(message.value())
    assert (result.id, result.status) == ("never", "failed")
    assert stage.begun == Counter(third=3, never=harness.settings.retry_attempts)


def test_a_bug_in_a_call_costs_one_record(harness: UnorderedHarness) -> None:
    class Broken(Held):
        def start(self, job: Job) -> None:
            super().start(job)
            if "bad" in self.jobs:
                del self.jobs["bad"]
                raise ZeroDivisionError("secret text")

    harness.screened(["bad", "good"], partition=0)
    stage = Broken()
    with harness.calling(stage):
        wait_until(lambda: "good" in stage.jobs, "calls")
        stage.finish("good")
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["good"])
        (message,) = harness.read(RESULTS, 1)
    result = RequestFinished.model_validate_json(message.value())
    assert result.error is not None
    assert (result.status, result.error.code) == ("failed", "internal_error")


def test_what_waits_is_bounded(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    harness = UnorderedHarness(
        bootstrap, prefix, tmp_path, calls_max_waiting=20, calls_max_running=5, batch_max_records=10
    )
    ids = [f"r{number}" for number in range(300)]
    harness.screened(ids)
    most = 0.0
    with harness.calling(slow(harness, longest_s=0.02)) as (_, metrics):
        until = time.monotonic() + 90
        while sum(harness.log.counts("ended").values()) < 300 and time.monotonic() < until:
            most = max(most, count(metrics, "penstock_calls_waiting"))
            assert count(metrics, "penstock_records_in_flight") <= 300
            time.sleep(0.01)
        assert ids_of(harness.read(COMPLETIONS, 300)) == Counter(ids)
    assert 0 < most <= 20


def test_partitions_move_to_a_second_instance_and_back(harness: UnorderedHarness) -> None:
    ids = [f"r{number}" for number in range(600)]
    harness.screened(ids[:200])
    one, two = slow(harness, 0.5, 20), slow(harness, 0.5, 20)
    with harness.calling(one, "0"):
        wait_until(lambda: len(harness.log.counts("ended")) > 20, "calls")
        with harness.calling(two, "1"):
            harness.screened(ids[200:400])
            wait_until(lambda: len(harness.log.counts("ended")) > 250, "calls")
        harness.screened(ids[400:])
        assert ids_of(harness.read(COMPLETIONS, 600)) == Counter(ids)


def test_a_long_wait_leaves_by_way_of_the_retry_topic_and_attempts_are_counted_on(harness: UnorderedHarness) -> None:
    stage = Held()
    harness.screened(["long", "next"], partition=0)
    with harness.calling(stage):
        wait_until(lambda: {"long", "next"} <= stage.jobs.keys(), "both calls")
        stage.jobs["long"].finish(RateLimited("slow down", retry_after_s=60))
        stage.finish("next")
        assert ids_of(harness.read(COMPLETIONS, 1)) == Counter(["next"])
        (waiting,) = harness.read(RETRY_INFERENCE, 1)
        first = Delayed.of(waiting.headers())
        assert first is not None
        assert (first.attempts, first.code) == (1, "rate_limited")
        # as it would come back
        producer = Producer(kafka.producer(harness.settings, None))
        topic = harness.names.topic(SCREENED)
        producer.produce(topic, waiting.value(), waiting.key(), partition=0, headers=waiting.headers())
        producer.flush(30)
        wait_until(lambda: stage.begun["long"] == 2, "the second call")
        stage.jobs["long"].finish(RateLimited("slow down", retry_after_s=60))
        wait_until(lambda: len(harness.read(RETRY_INFERENCE, 2)) == 2, "the second delay")
    again = [Delayed.of(message.headers()) for message in harness.read(RETRY_INFERENCE, 2)]
    assert [(known.attempts, known.retry_of) for known in again if known is not None] == [
        (1, first.retry_of),
        (2, first.retry_of),
    ]
    assert harness.read(RESULTS, 0) == []


def test_a_partition_that_left_while_it_was_paused_is_read_again_when_it_comes_back(
    bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    harness = UnorderedHarness(
        bootstrap, prefix, tmp_path, calls_max_waiting=20, calls_max_running=5, batch_max_records=10
    )
    ids = [f"r{number}" for number in range(180)]
    harness.screened(ids[:60], partition=0)
    harness.screened(ids[60:120], partition=1)
    held = Held()
    with harness.calling(held) as (_, metrics):
        wait_until(lambda: count(metrics, "penstock_calls_waiting") >= 20, "no room")
        with harness.calling(slow(harness, 0.01), "1"):
            wait_until(lambda: bool(harness.log.counts("ended")), "calls of the second")
            wait_until(lambda: held.finish_all() >= 60, "room again, and only then the partition comes back")
        harness.screened(ids[120:150], partition=0)
        harness.screened(ids[150:], partition=1)
        wait_until(lambda: held.finish_all() > 0 and set(ids[120:]) <= held.jobs.keys(), "the later ones")
        held.finish_all()
        assert ids_of(harness.read(COMPLETIONS, 180)) == Counter(ids)


def test_partitions_that_leave_while_records_are_taken_are_committed_first(harness: UnorderedHarness) -> None:
    """The client serves a rebalance inside whichever call takes records: none may wait for another thread's."""
    first, second = Held(), Held()
    with harness.calling(first, "0") as (worker, _):
        consumer = worker._intakes[0].consumer

        class OnlyConsume:
            """Its `poll` is a `consume` of one: then every rebalance is served inside `consume`."""

            def __getattr__(self, name: str) -> object:
                return getattr(consumer, name)

            def poll(self, timeout: float) -> object:
                return next(iter(consumer.consume(1, timeout)), None)

        worker._intakes[0]._consumer = OnlyConsume()
        harness.screened([f"r{number}" for number in range(20)])
        wait_until(lambda: len(first.jobs) == 20, "calls")
        for request_id in list(first.jobs)[:10]:
            worker._uncommitted._not_before = (
                time.monotonic() + 3600
            )  # what has finished waits for the rebalance to commit it
            first.finish(request_id)
        with harness.calling(second, "1"):
            wait_until(lambda: len(second.jobs) > 0, "calls of the second")
            for request_id in list(second.jobs):
                second.finish(request_id)
            assert len(ids_of(harness.read(COMPLETIONS, 10))) >= 10
