"""Streamed pieces from one topic to the next, in a thread beside the worker, at least once.

Outside transactions, since a piece is to be read at once. What is committed is where the oldest stream that is still
open began: after a crash its pieces are read again, and what was told is told again under the same sequence numbers.
What a stream becomes is the service's work (`streams`). A piece that the broker does not take is logged: the stream
then has a gap, its reader ends it, and the result has the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from pydantic import ValidationError

from penstock.contracts import headers as header_names
from penstock.contracts.errors import RetriableError
from penstock.contracts.topics import load_topics
from penstock.runtime import kafka
from penstock.runtime.access import NOT_AUTHORIZED
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.side import SideThread
from penstock.runtime.streams import Begin, P, Place, Refuse, Streams, Told

_log = structlog.get_logger()

POLL_S = 0.1
COMMIT_S = 1.0
FLUSH_S = 5.0
ATTEMPTS = 2
"""At one piece; then its stream ends as failed. A stream is a preview: the result's own attempts are another matter."""
ATTEMPT_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Relaying(Generic[P]):
    """What one service does to streams: where it reads and writes (declared names), and how one begins."""

    source: str
    sink: str
    decode: Callable[[bytes], P]
    """A record's value as a piece; raises ValidationError."""
    begin: Begin[P]
    refuse: Refuse


class Relay(SideThread, Generic[P]):
    """Carries one service's streams until told to stop."""

    def __init__(
        self,
        stage: str,
        relaying: Relaying[P],
        *,
        settings: ServiceSettings,
        names: Names,
        metrics: StageMetrics,
        stopping: threading.Event,
    ) -> None:
        self._relaying = relaying
        self._source = names.topic(relaying.source)
        self._sink = names.topic(relaying.sink)
        (sink,) = [topic for topic in load_topics() if topic.name == relaying.sink]
        self._most_bytes = sink.max_message_bytes - kafka.RECORD_OVERHEAD_BYTES
        super().__init__("streams", stopping)
        self._streams = Streams(
            relaying.begin,
            relaying.refuse,
            idle_s=settings.streams_idle_s,
            most=settings.streams_max,
            ended=lambda state: metrics.streams.labels(stage, state).inc(),
            first_text=metrics.stream_first_text.labels(stage).observe,
        )
        self._producer = Producer({**kafka.producer(settings, None, linger_ms=0), "error_cb": kafka.ErrorLog()})
        config = kafka.consumer(settings, f"{names.group(stage)}-streams")
        self._consumer = Consumer({**config, "statistics.interval.ms": 0, "error_cb": kafka.ErrorLog()})
        self._positions: dict[Place, int] = {}
        self._committed: dict[Place, int] = {}
        self._looked = time.monotonic()

    def _run(self) -> None:
        self._consumer.subscribe(
            [self._source], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not self._stopping.is_set():
                # one at a time: screening one may take as long as a poll may be late
                message = self._consumer.poll(POLL_S)
                if message is not None:
                    self._take(message)
                if time.monotonic() - self._looked >= COMMIT_S:
                    self._looked = time.monotonic()
                    self._tell(self._streams.expire())
                    self._commit(self._positions, wait=False)
        finally:
            self._consumer.close()  # which revokes, and so commits
            self._producer.flush(FLUSH_S)

    # --- pieces

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if kafka.is_fatal(error) or error.code() in NOT_AUTHORIZED:
                raise KafkaException(error)
            _log.warning("runtime.consume.error", error=error.name(), topic=message.topic())
            return
        place = (message.topic(), message.partition())
        if place not in self._positions:
            return  # no longer ours
        record = kafka.record_of(message)
        try:
            piece = self._relaying.decode(record.value or b"")
        except ValidationError:
            _log.error("runtime.stream.foreign_record", topic=place[0], partition=place[1], offset=record.offset)
        else:
            told = self._told(piece, place, record.offset, record.key, record.headers)
            if told is None:
                return
            self._tell(told)
        self._positions[place] = record.offset + 1

    def _told(
        self, piece: P, place: Place, offset: int, key: bytes | None, headers: tuple[tuple[str, bytes | None], ...]
    ) -> list[Told] | None:
        """What there is to tell; None where the process stops before the piece was taken."""
        for attempt in range(ATTEMPTS):
            try:
                return self._streams.take(piece, place=place, offset=offset, key=key, headers=headers)
            except RetriableError as error:
                _log.warning("runtime.stream.retry", code=error.code, attempt=attempt + 1)
                if self._stopping.wait(ATTEMPT_PAUSE_S):
                    return None
        return self._streams.give_up(piece, place)

    def _tell(self, pieces: list[Told]) -> None:
        for told in pieces:
            value = told.message.encode()
            if len(value) > self._most_bytes:
                _log.error("runtime.stream.too_large", bytes=len(value), topic=self._sink)
                continue
            schema = told.message.schema_ref().encode()
            headers = [(name, schema if name == header_names.SCHEMA else value) for name, value in told.headers]
            kafka.enqueue(self._producer, self._sink, value, told.key, headers=headers, on_delivery=self._delivered)

    @staticmethod
    def _delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            _log.warning("runtime.stream.undelivered", error=error.name(), topic=message.topic())

    # --- where it stands

    def _commit(self, places: dict[Place, int], *, wait: bool) -> None:
        """Commit where each of these partitions would have to be read again, once all that was told is delivered."""
        marks = {}
        for place, position in places.items():
            oldest = self._streams.oldest(place)
            mark = position if oldest is None else oldest
            if mark >= 0 and self._committed.get(place) != mark:
                marks[place] = mark
        if not marks or self._producer.flush(FLUSH_S):
            return
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*place, mark) for place, mark in marks.items()], asynchronous=not wait
            )
        except KafkaException as error:
            _log.warning("runtime.stream.uncommitted", error=error.args[0].name())
        else:
            self._committed.update(marks)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            self._positions[(part.topic, part.partition)] = -1
        consumer.incremental_assign(partitions)
        _log.info("runtime.streams.assigned", partitions=len(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = {(part.topic, part.partition) for part in partitions}
        self._commit({place: self._positions[place] for place in places if place in self._positions}, wait=True)
        self._forget(places)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget({(part.topic, part.partition) for part in partitions})
        consumer.incremental_unassign(partitions)

    def _forget(self, places: set[Place]) -> None:
        self._streams.drop(tuple(places))
        for place in places:
            self._positions.pop(place, None)
            self._committed.pop(place, None)


@contextmanager
def relaying(
    stage: str,
    what: Relaying[P] | None,
    *,
    settings: ServiceSettings,
    names: Names,
    metrics: StageMetrics,
    stopping: threading.Event,
) -> Iterator[None]:
    """Carry a stage's streams, where it has any, beside what is done inside; its failure is raised at the end."""
    if what is None:
        yield
        return
    relay = Relay(stage, what, settings=settings, names=names, metrics=metrics, stopping=stopping)
    relay.start()
    try:
        yield
    finally:
        stopping.set()
        relay.join()
