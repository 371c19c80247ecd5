"""Putting delayed records back into their stage's input when they are due, each exactly once.

A thread beside the worker, with a consumer, a group and a transactional producer of its own. Records that
wait hold up no others: the newest delivered one may be `retry_window_records` ahead of the oldest waiting
one, and those put back meanwhile are kept in the offset's metadata (`progress`). Beyond that window, or
`retry_window_kbytes` of waiting records, the rest stays in Kafka until some are due. When a record is tried
again, and how often, is decided elsewhere (`retries`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from penstock.contracts.delays import Delayed
from penstock.contracts.topics import RETRIES
from penstock.runtime import kafka, offsets
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Output
from penstock.runtime.progress import Checkpoint, Progress
from penstock.runtime.publisher import STUCK_AFTER_S, Aborted, Publisher
from penstock.runtime.settings import ServiceSettings, lanes_of
from penstock.runtime.side import SideThread
from penstock.runtime.waiting import Slot, Waiting, WaitingRoom

_log = structlog.get_logger()

POLL_S = 0.5
BATCH_RECORDS = 500
"""Most in one transaction, and most taken at once."""
FETCH_KBYTES = 16_384
MEASURE_S = 1.0
BROKER_RETRY_S = 2.0
"""Beyond it the process ends without the thread: what it has not committed is read again."""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Pump(SideThread):
    """Moves what is due from one service's retry topic to the topics that it reads."""

    def __init__(
        self,
        *,
        stage: str,
        inputs: Sequence[str],
        settings: ServiceSettings,
        names: Names,
        metrics: StageMetrics,
        stopping: threading.Event,
        clock_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        self._stage = stage
        self._topic = names.topic(RETRIES[stage])
        self._inputs = {names.topic(name): name for name in inputs}
        self._settings = settings
        self._metrics = metrics
        super().__init__("retry-pump", stopping)
        self._clock_ms = clock_ms
        transactional_id = f"{names.transactional_id(stage, settings.instance, lanes_of(settings)[0])}-retry"
        self._publisher = Publisher(kafka.producer(settings, transactional_id), names)
        config = kafka.consumer(settings, names.retry_group(stage))
        # mostly there is nothing to read: the broker answers at once where there is, and is asked seldom otherwise
        idle = {"fetch.wait.max.ms": 500, "statistics.interval.ms": 0}
        fetched = min(settings.queue_max_kbytes, FETCH_KBYTES)
        self._consumer = Consumer({**config, **idle, "queued.max.messages.kbytes": fetched})
        self._room = WaitingRoom()
        self._progress: dict[Slot, Progress] = {}
        self._paused: set[Slot] = set()
        self._stale = False
        self._measured = 0.0

    def _run(self) -> None:
        if not self._connect():
            return
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )
        try:
            while not self._stopping.is_set():
                if self._stale and not self._recover():
                    continue
                self._take()
                self._put_back()
                self._bound()
                self._measure()
        finally:
            self._consumer.close()
            self._publisher.close()

    def _connect(self) -> bool:
        while not self._stopping.is_set():
            try:
                self._publisher.start()
            except KafkaException as error:
                _log.warning("runtime.broker.unreachable", error=error.args[0].name())
                self._stopping.wait(BROKER_RETRY_S)
            else:
                return True
        return False

    # --- taking records

    def _take(self) -> None:
        message = self._consumer.poll(self._patience_s())
        if message is not None:
            for one in [message, *self._consumer.consume(BATCH_RECORDS - 1, timeout=0)]:
                self._keep(one)

    def _patience_s(self) -> float:
        due = self._room.next_ms()
        return POLL_S if due is None else min(POLL_S, max(0, due - self._clock_ms()) / 1000)

    def _keep(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if kafka.is_fatal(error):
                raise KafkaException(error)
            _log.warning("runtime.consume.error", error=error.name(), topic=message.topic())
            return
        record = kafka.record_of(message)
        slot = (record.topic, record.partition)
        progress = self._progress.get(slot)
        if progress is None or not progress.deliver(record.offset):
            return  # no longer ours, or put back in an earlier life
        known = Delayed.of(record.headers)
        if known is None or known.retry_of.topic not in self._inputs:
            _log.error("runtime.retry.foreign_record", topic=slot[0], partition=slot[1], offset=record.offset)
            progress.finish(record.offset)
            return
        self._room.add(Waiting(record, known))

    def _bound(self) -> None:
        """Pause what is too far ahead of its oldest waiting record, or all while memory is full; resume the rest."""
        full = self._room.size >= self._settings.retry_window_kbytes * 1024
        window = self._settings.retry_window_records
        wanted = {slot for slot, progress in self._progress.items() if full or progress.span >= window}
        if more := wanted - self._paused:
            self._consumer.pause(self._slots(more))
            _log.warning("runtime.retry.window_full", partitions=len(more), waiting=len(self._room))
        if fewer := self._paused - wanted:
            self._consumer.resume(self._slots(fewer))
        self._paused = wanted

    # --- putting back

    def _put_back(self) -> None:
        """Move what is due, in one transaction with where each partition now stands."""
        due = self._room.due(self._clock_ms(), BATCH_RECORDS)
        if not due:
            return
        for one in due:
            self._progress[one.slot].finish(one.record.offset)
        outputs = [self._output(one) for one in due]
        marks = {slot: self._progress[slot].checkpoint() for slot in {one.slot for one in due}}
        try:
            self._publisher.commit(outputs, {}, [(self._consumer, _offsets(marks))], self._wait)
        except Aborted as error:
            _log.warning("runtime.transaction.aborted", reason=error.reason, records=len(due))
            self._metrics.transactions.labels(self._stage, "aborted").inc()
            self._stale = True
            return
        for slot, mark in marks.items():
            self._progress[slot].committed(mark)
        _log.info("runtime.retry.put_back", records=len(due), waiting=len(self._room))

    def _output(self, one: Waiting) -> Output:
        record, place = one.record, one.known.retry_of
        headers = list(record.headers)
        return Output(
            self._inputs[place.topic], record.key, record.value, headers, place.partition, record.timestamp_ms
        )

    @staticmethod
    def _wait(waited_s: float) -> bool:
        return waited_s < STUCK_AFTER_S

    def _recover(self) -> bool:
        """After an abort nothing of it is visible: begin again where the broker says we stand. False: not yet."""
        self._consumer.poll(random.uniform(0.2, 1.0))  # a rebalance, if there is one; what it returns is read again
        try:
            committed = offsets.ask(self._consumer, self._slots(self._progress))
        except KafkaException as error:
            if not offsets.is_retriable(error.args[0]):
                raise
            return False
        self._room.drop(self._progress)
        for position in self._begin(committed):
            self._consumer.seek(position)
        self._stale = False
        return True

    # --- partitions

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._stopping.is_set():  # the group's last word to a member that leaves: nothing of it is taken
            consumer.incremental_assign(partitions)
            return
        placed = self._begin(offsets.committed(consumer, partitions))
        consumer.incremental_assign(placed)
        consumer.resume(placed)  # a partition that left while it was paused still is: the client keeps that
        _log.info("runtime.retry.assigned", partitions=len(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        slots = {(part.topic, part.partition) for part in partitions}
        self._room.drop(slots)
        self._paused -= slots
        for slot in slots:
            self._progress.pop(slot, None)
        consumer.incremental_unassign(partitions)

    def _begin(self, committed: list[TopicPartition]) -> list[TopicPartition]:
        """Where to read on; what is known of each partition begins anew there."""
        found = []
        for part in committed:
            start = max(0, part.offset)
            self._progress[(part.topic, part.partition)] = Progress(start, offsets.ahead(part))
            found.append(TopicPartition(part.topic, part.partition, start if part.offset >= 0 else OFFSET_BEGINNING))
        return found

    @staticmethod
    def _slots(slots: Iterable[Slot]) -> list[TopicPartition]:
        return [TopicPartition(*slot) for slot in slots]

    def _measure(self) -> None:
        if time.monotonic() - self._measured < MEASURE_S:
            return
        self._measured = time.monotonic()
        oldest = self._room.oldest_ms()
        age_s = 0.0 if oldest is None else max(0.0, (self._clock_ms() - oldest) / 1000)
        self._metrics.retry_waiting.labels(self._stage).set(len(self._room))
        self._metrics.retry_waiting_age.labels(self._stage).set(age_s)


def _offsets(marks: dict[Slot, Checkpoint]) -> list[TopicPartition]:
    return [TopicPartition(topic, number, mark.offset, mark.metadata) for (topic, number), mark in marks.items()]


@contextmanager
def pumping(
    stage: str,
    inputs: Sequence[str],
    *,
    settings: ServiceSettings,
    names: Names,
    metrics: StageMetrics,
    stopping: threading.Event,
) -> Iterator[None]:
    """Run the pump of a stage that has a retry topic beside what is done inside; its failure is raised at the end."""
    if stage not in RETRIES:
        yield
        return
    pump = Pump(stage=stage, inputs=inputs, settings=settings, names=names, metrics=metrics, stopping=stopping)
    pump.start()
    try:
        yield
    finally:
        stopping.set()
        pump.join()
