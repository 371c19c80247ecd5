"""`penstock.runtime.unordered`, over an in-memory log: records that the broker refuses for their size, or too late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from confluent_kafka import TopicPartition
from tests.support.memory_log import MemoryConsumer, MemoryLedger, MemoryLog, MemoryMessage, MemoryPublisher
from tests.support.slow import answer_to

from penstock.contracts import headers as names_of
from penstock.contracts.errors import BackendUnavailable, StageError
from penstock.contracts.events import GenerationParameters, RequestContext, RequestScreened, Source
from penstock.contracts.results import DeadLetter, RequestFinished, Status
from penstock.contracts.topics import COMPLETIONS, DEAD_LETTERS, RESULTS, SCREENED
from penstock.runtime.health import Health
from penstock.runtime.intake import Lane
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Output
from penstock.runtime.processor import Boundary
from penstock.runtime.publisher import TooLarge
from penstock.runtime.settings import UnorderedSettings
from penstock.runtime.stage import Inbound, Job, UnorderedStage
from penstock.runtime.unordered import UnorderedWorker

SLOT = (SCREENED, 0)


class AtOnce:
    """Answers each call as it is started, and counts them."""

    name = "inference"
    versions: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ends: list[tuple[str, Status]] = []

    def room(self) -> int:
        return 10

    def start(self, job: Job) -> None:
        event = job.inbound.expect(RequestScreened)
        self.calls.append(event.context.request_id)
        job.finish(answer_to(event))

    def cancel(self, job: Job) -> None:
        """Nothing runs on."""

    def ended(self, inbound: Inbound, status: Status) -> None:
        self.ends.append((inbound.expect(RequestScreened).context.request_id, status))

    def close(self) -> None:
        """Nothing is held."""


class OneByOne(AtOnce):
    """Has room for one call, which lasts until it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []

    def room(self) -> int:
        return 1 - len(self.jobs)

    def start(self, job: Job) -> None:
        self.calls.append(job.inbound.expect(RequestScreened).context.request_id)
        self.jobs.append(job)

    def end(self) -> None:
        job = self.jobs.pop()
        job.finish(answer_to(job.inbound.expect(RequestScreened)))


class Narrow(MemoryPublisher):
    """Refuses the completion of one request; which record it was shows only where they are sent singly."""

    def __init__(self, log: MemoryLog, refused: str) -> None:
        super().__init__(log)
        self._refused = refused.encode()
        self.attempts: list[bool] = []
        """Of each commit of outputs, whether they were sent singly."""

    def commit(
        self,
        outputs: Sequence[Output],
        state: Mapping[str, object],
        positions: Sequence[tuple[MemoryConsumer, list[TopicPartition]]],
        patience: Callable[[float], bool],
        *,
        singly: bool = False,
    ) -> dict[str, dict[str, int]]:
        self.attempts.append(singly)
        found = [one for one in outputs if one.topic == COMPLETIONS and request_id(one) == self._refused]
        if found:
            raise TooLarge(found if singly else [])
        return super().commit(outputs, state, positions, patience, singly=singly)


def request_id(output: Output) -> bytes | None:
    return dict(output.headers).get(names_of.REQUEST_ID)


def message(offset: int, name: str, deadline_ms: int | None = None) -> MemoryMessage:
    context = RequestContext(
        request_id=name,
        conversation_id=name,
        deadline_ms=deadline_ms,
        submitted_ms=1,
        source=Source(topic="llm.requests", partition=0, offset=offset),
    )
    event = RequestScreened(context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))
    headers: list[Any] = names_of.of_context(context, event.schema_ref())
    return MemoryMessage(SLOT, offset, 1, name.encode(), event.encode(), headers)


def working(log: MemoryLog, stage: UnorderedStage, publisher: MemoryPublisher, **clocks: Any) -> UnorderedWorker:
    """A worker that owns the log's partition."""
    consumer = MemoryConsumer(log)
    worker = UnorderedWorker(
        lanes=[Lane("interactive", (SCREENED,), "g")],
        stage=stage,
        settings=UnorderedSettings(batch_max_records=10),
        boundary=Boundary(stage, names=Names("")),
        publisher=publisher,
        ledger=MemoryLedger(log),
        metrics=StageMetrics("inference"),
        health=Health(),
        stopping=threading.Event(),
        client=lambda _: consumer,
        **clocks,
    )
    worker.subscribe()
    log.owners[SLOT] = consumer
    consumer.tell("on_assign", [SLOT])
    return worker


def test_what_the_broker_refuses_for_its_size_ends_that_request_alone() -> None:
    log = MemoryLog([SLOT])
    for offset, name in enumerate(("a", "large", "b")):
        log.append(SLOT, message(offset, name))
    stage, publisher = AtOnce(), Narrow(log, "large")
    worker = working(log, stage, publisher)
    for _ in range(20):
        worker.turn()
        if log.offsets.get(SLOT, (0, ""))[0] == 3:
            break

    assert sorted(stage.calls) == ["a", "b", "large"], "no call is made twice"
    ends = sorted((one.topic, request_id(one)) for one in log.visible if one.topic in (COMPLETIONS, RESULTS))
    assert ends == [(COMPLETIONS, b"a"), (COMPLETIONS, b"b"), (RESULTS, b"large")]
    (result,) = (RequestFinished.model_validate_json(one.value or b"") for one in log.visible if one.topic == RESULTS)
    assert result.error is not None
    assert (result.status, result.error.code) == ("failed", "record_too_large")
    (letter,) = (one for one in log.visible if one.topic == DEAD_LETTERS)
    known = DeadLetter.model_validate_json(dict(letter.headers)[names_of.DEAD_LETTER] or b"")
    assert (letter.value, known.source.offset) == (log.records[SLOT][1].the_value, 1)
    assert log.notes == {}, "a call that has ended is not repeated after a restart"
    # first together; then singly, which names the one; then what is left of it
    first = publisher.attempts.index(True)
    assert publisher.attempts[first - 1 : first + 2] == [False, True, True]
    # what comes later is sent together again
    log.append(SLOT, message(4, "later"))
    for _ in range(20):
        worker.turn()
        if log.offsets[SLOT][0] == 5:
            break
    assert publisher.attempts[-1] is False
    assert request_id(log.visible[-1]) == b"later"


def test_where_others_wait_what_cannot_be_answered_in_time_expires_without_a_call() -> None:
    log, stage, now_s = MemoryLog([SLOT]), OneByOne(), 100.0
    worker = working(log, stage, MemoryPublisher(log), clock_ns=lambda: int(now_s * 1e9), monotonic=lambda: now_s)
    log.append(SLOT, message(0, "first"))
    worker.turn()
    now_s += 10.0
    stage.end()
    worker.turn()

    for offset, (name, left_s) in enumerate((("late", 9), ("later", 8), ("in-time", 60), ("last", 7)), start=1):
        log.append(SLOT, message(offset, name, int((now_s + left_s) * 1000)))
    worker.turn()
    assert stage.calls == ["first", "in-time"]
    stage.end()
    worker.turn()
    worker.turn()
    assert stage.calls == ["first", "in-time", "last"], "with nobody else waiting it is tried all the same"
    stage.end()
    worker.turn()
    results = [RequestFinished.model_validate_json(one.value or b"") for one in log.visible if one.topic == RESULTS]
    assert [(one.id, one.status) for one in results] == [("late", "expired"), ("later", "expired")]
    assert all(one.error is not None and "its turn came" in one.error.message for one in results)
    completed = [request_id(one) for one in log.visible if one.topic == COMPLETIONS]
    assert completed == [b"first", b"in-time", b"last"]


def test_the_stage_is_told_of_each_record_that_ended_without_its_answer_and_of_no_other() -> None:
    log, stage, now_s = MemoryLog([SLOT]), OneByOne(), 100.0
    worker = working(log, stage, MemoryPublisher(log), clock_ns=lambda: int(now_s * 1e9), monotonic=lambda: now_s)
    for offset, (name, left_s) in enumerate((("answered", None), ("broken", None), ("busy", 5), ("passed", -1))):
        log.append(SLOT, message(offset, name, None if left_s is None else int((now_s + left_s) * 1000)))
    worker.turn()
    stage.end()
    worker.turn()
    assert stage.ends == [("passed", "expired")]
    stage.jobs.pop().finish(StageError("broken"))
    worker.turn()
    assert stage.ends[1:] == [("broken", "failed")]
    stage.jobs.pop().finish(BackendUnavailable("busy"))
    worker.turn()
    assert len(stage.ends) == 2, "it is tried again"
    now_s += 6.0
    worker.turn()
    worker.turn()
    assert stage.ends[2:] == [("busy", "expired")]
    log.append(SLOT, message(4, "abandoned"))
    worker.turn()
    assert stage.calls[-1] == "abandoned"
    log.owners[SLOT].tell("on_lost", [SLOT])
    stage.jobs.pop().finish(StageError("broken"))
    worker.turn()
    assert len(stage.ends) == 3, "another process has it now"
