"""`penstock.runtime.unordered`, over an in-memory log: what the broker refuses for its size ends one request alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from confluent_kafka import TopicPartition
from tests.support.memory_log import MemoryConsumer, MemoryLedger, MemoryLog, MemoryMessage, MemoryPublisher
from tests.support.slow import answer_to

from penstock.contracts import headers as names_of
from penstock.contracts.events import GenerationParameters, RequestContext, RequestScreened, Source
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.topics import COMPLETIONS, DEAD_LETTERS, RESULTS, SCREENED
from penstock.runtime.health import Health
from penstock.runtime.intake import Lane
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Output
from penstock.runtime.processor import Boundary
from penstock.runtime.publisher import TooLarge
from penstock.runtime.settings import UnorderedSettings
from penstock.runtime.stage import Job
from penstock.runtime.unordered import UnorderedWorker

SLOT = (SCREENED, 0)


class AtOnce:
    """Answers each call as it is started, and counts them."""

    name = "inference"
    versions: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.calls: list[str] = []

    def room(self) -> int:
        return 10

    def start(self, job: Job) -> None:
        event = job.inbound.expect(RequestScreened)
        self.calls.append(event.context.request_id)
        job.finish(answer_to(event))

    def cancel(self, job: Job) -> None:
        """Nothing runs on."""

    def close(self) -> None:
        """Nothing is held."""


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


def message(offset: int, name: str) -> MemoryMessage:
    context = RequestContext(
        request_id=name,
        conversation_id=name,
        submitted_ms=1,
        source=Source(topic="llm.requests", partition=0, offset=offset),
    )
    event = RequestScreened(context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))
    headers: list[Any] = names_of.of_context(context, event.schema_ref())
    return MemoryMessage(SLOT, offset, 1, name.encode(), event.encode(), headers)


def test_what_the_broker_refuses_for_its_size_ends_that_request_alone() -> None:
    log = MemoryLog([SLOT])
    for offset, name in enumerate(("a", "large", "b")):
        log.append(SLOT, message(offset, name))
    consumer, stage, publisher = MemoryConsumer(log), AtOnce(), Narrow(log, "large")
    metrics = StageMetrics("inference")
    worker = UnorderedWorker(
        lanes=[Lane("interactive", (SCREENED,), "g")],
        stage=stage,
        settings=UnorderedSettings(batch_max_records=10),
        boundary=Boundary(stage, names=Names("")),
        publisher=publisher,
        ledger=MemoryLedger(log),
        metrics=metrics,
        health=Health(),
        stopping=threading.Event(),
        client=lambda _: consumer,
    )
    worker.subscribe()
    log.owners[SLOT] = consumer
    consumer.tell("on_assign", [SLOT])
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
