"""The thread that generates: room, joining, giving up, ending."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.generation import Scripted, Sink, completed, event_of, job_of, local
from tests.support.jobs import MemoryJob
from tests.support.stack import wait_until

from penstock.contracts.errors import StageError
from penstock.runtime.stage import UnorderedStage
from penstock_inference.backend import Piece
from penstock_inference.stage import InferenceStage


class Stepped(Scripted):
    """Takes a step only when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self._may = threading.Semaphore(0)
        self.free = False

    def allow(self, steps: int = 1) -> None:
        self._may.release(steps)

    def step(self) -> Sequence[Piece]:
        if not self.free:
            assert self._may.acquire(timeout=60)
        return super().step()


@contextmanager
def stage_over(backend: Any, queue: int = 0, sink: Sink | None = None) -> Iterator[InferenceStage]:
    stage = InferenceStage(backend, sink or Sink(), release="1.2.3", queue=queue)
    try:
        yield stage
    finally:
        if isinstance(backend, Stepped):
            backend.free = True
            backend.allow()
        stage.close()


def begin(stage: InferenceStage, request_id: str, **given: Any) -> MemoryJob:
    job = job_of(event_of(request_id, **given))
    stage.start(job)
    return job


def test_is_an_unordered_stage_with_the_versions_of_its_answers() -> None:
    with stage_over(local()) as stage:
        assert isinstance(stage, UnorderedStage)
        assert stage.versions["inference"] == "1.2.3"
        assert stage.versions["model"].startswith("sha256:")


def test_answers_come_as_they_are_complete_not_in_the_order_of_arrival() -> None:
    backend = Stepped()
    with stage_over(backend) as stage:
        long, short = begin(stage, "a", max_tokens=5), begin(stage, "b", max_tokens=2)
        backend.allow(3)  # the second may have joined after the first step
        assert completed_later(short) == 2
        assert long.outcomes == []
        backend.allow(5)
        assert completed_later(long) == 5


def completed_later(job: MemoryJob) -> int:
    job.wait()
    return completed(job).completion.usage.completion_tokens


def test_a_request_joins_between_two_steps() -> None:
    backend = Stepped()
    with stage_over(backend) as stage:
        long = begin(stage, "a", max_tokens=50)
        backend.allow()
        long.wait_first()
        late = begin(stage, "b", max_tokens=1)
        backend.allow(2)
        assert completed_later(late) == 1
        assert long.outcomes == []
        assert max(backend.widths) == 2


def test_room_is_rows_and_queue_less_what_is_held() -> None:
    backend = Stepped()
    with stage_over(backend, queue=2) as stage:
        assert stage.room() == backend.rows + 2
        jobs = [begin(stage, f"r{number}", max_tokens=1) for number in range(5)]
        assert stage.room() == backend.rows - 3
        backend.free = True
        backend.allow()
        for job in jobs:
            job.wait()
        wait_until(lambda: stage.room() == backend.rows + 2, "all places free again")


def test_a_cancelled_request_leaves_within_one_step_and_is_never_finished() -> None:
    backend = Stepped()
    with stage_over(backend) as stage:
        long, other = begin(stage, "a", max_tokens=1_000), begin(stage, "b", max_tokens=1_000)
        backend.allow(2)
        other.wait_first()
        long.wait_first()
        wait_until(lambda: len(backend.widths) == 2, "both steps")
        stage.cancel(long)
        # the step that may have begun already, and the one after it
        backend.allow(2)
        wait_until(lambda: len(backend.widths) == 4, "two more steps")
        assert backend.widths[-1] == 1
        assert stage.room() == backend.rows - 1
        stage.cancel(other)
        backend.allow()
        wait_until(lambda: stage.room() == backend.rows, "both places free")
        assert long.outcomes == other.outcomes == []


def test_cancelling_what_has_not_begun_or_has_ended_harms_nobody() -> None:
    backend = Stepped()
    with stage_over(backend) as stage:
        done = begin(stage, "a", max_tokens=1)
        backend.allow()
        done.wait()
        stage.cancel(done)
        stage.cancel(job_of(event_of("never-started")))
        after = begin(stage, "b", max_tokens=1)
        backend.allow()
        assert completed_later(after) == 1
        assert len(done.outcomes) == 1


def test_a_stream_is_closed_after_the_last_piece_that_was_told_of_it() -> None:
    backend, sink = Stepped(), Sink()
    with stage_over(backend, sink=sink) as stage:
        streamed, silent = begin(stage, "a", max_tokens=1_000, stream=True), begin(stage, "b", max_tokens=1_000)
        backend.allow(3)
        wait_until(lambda: sink.of("a"), "a piece")
        for job in (streamed, silent):
            stage.cancel(job)
            stage.ended(job.inbound, "cancelled")
        backend.allow(3)  # the step that waits comes before the stage hears of it
        wait_until(lambda: sink.of("a")[-1].ended, "the closing piece")
        assert [piece.ended for piece in sink.of("a")].index("cancelled") == len(sink.of("a")) - 1
        # nothing runs any more, and a record that was never begun here may have a stream all the same
        stage.ended(job_of(event_of("c", stream=True)).inbound, "expired")
        wait_until(lambda: sink.of("c"), "the closing piece of a stream of another process")
    assert [piece.ended for piece in sink.of("c")] == ["expired"]
    assert sink.of("b") == []


def test_closing_gives_up_what_is_left() -> None:
    backend = Stepped()
    with stage_over(backend) as stage:
        job = begin(stage, "a", max_tokens=1_000)
        backend.allow()
        job.wait_first()
    assert job.outcomes == []
    assert backend.running == {}


def test_a_thread_that_has_ended_is_told_to_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Scripted()
    with stage_over(backend) as stage:
        monkeypatch.setattr(stage._generating, "begin", lambda *_: 1 / 0)
        begin(stage, "a")
        stage._thread.join(60)
        with pytest.raises(StageError, match="has ended"):
            stage.room()
