"""Publishing requests, reading whole topics at either isolation level, and counting what was aborted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from penstock.contracts import topics
from penstock.contracts.events import Priority
from penstock.contracts.lanes import lane_of
from penstock.contracts.results import RequestFinished
from penstock.runtime import kafka
from penstock.runtime.settings import ServiceSettings

TRANSACTIONAL = (
    *(name for event in topics.EVENTS for name in topics.siblings(event)),
    topics.RESULTS,
    topics.DEAD_LETTERS,
    topics.STATE_REQUEST_IDS,
    topics.STATE_VAULTS,
)
"""The topics that services write inside their transactions; streamed tokens go outside."""


class Slot(NamedTuple):
    """Where a record stands; the topic as the broker names it."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Publishing:
    """A record to publish to `llm.requests`, or to its sibling in another lane."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    key: bytes | None = None
    lane: Priority = "interactive"


def settings(bootstrap: str, prefix: str) -> ServiceSettings:
    """The settings of a client of one installation."""
    return ServiceSettings(kafka_bootstrap_servers=bootstrap, topic_prefix=prefix)


class Sender:
    """Publishes requests and says where each one landed."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._producer = Producer(kafka.producer(settings(bootstrap, prefix), None))
        self._names = kafka.Names(prefix)

    def send(self, requests: Iterable[Publishing]) -> list[Slot]:
        """Publish all and wait for the broker's word on each; their places, in order."""
        places: dict[int, Slot] = {}
        failures: list[KafkaError] = []

        def report(index: int) -> Callable[[KafkaError | None, Message], None]:
            def delivered(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    failures.append(error)
                else:
                    places[index] = Slot(message.topic(), message.partition(), message.offset())

            return delivered

        count = 0
        for count, request in enumerate(requests, start=1):
            self._producer.produce(
                self._names.topic(topics.in_lane(topics.REQUESTS, request.lane)),
                value=request.value,
                key=request.key,
                headers=list(request.headers),
                on_delivery=report(count - 1),
            )
            self._producer.poll(0)
        left = self._producer.flush(60)
        if failures or left:
            raise KafkaException(failures[0] if failures else f"{left} records not delivered")
        return [places[index] for index in range(count)]


class Follower:
    """Reads topics from their beginning and goes on from where it was; outside any group."""

    def __init__(self, bootstrap: str, prefix: str, names: Sequence[str], *, committed: bool = True) -> None:
        config = kafka.reader(settings(bootstrap, prefix), f"{prefix}follower")
        if not committed:
            config["isolation.level"] = "read_uncommitted"
        self._consumer = Consumer(config)
        self._at_end: dict[tuple[str, int], bool] = {}
        assignment = []
        for name in names:
            topic = f"{prefix}{name}"
            described = self._consumer.list_topics(topic, timeout=60).topics[topic]
            if described.error is not None:
                raise KafkaException(described.error)
            assignment += [TopicPartition(topic, number, 0) for number in described.partitions]
        self._at_end = {(part.topic, part.partition): False for part in assignment}
        self._consumer.assign(assignment)

    def poll(self, seconds: float = 0.2) -> list[Message]:
        """What has come since."""
        found = []
        for message in self._consumer.consume(5_000, seconds):
            error = message.error()
            slot = (message.topic(), message.partition())
            if error is None:
                self._at_end[slot] = False
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end[slot] = True
            else:
                raise KafkaException(error)
        return found

    def to_end(self, seconds: float = 120) -> list[Message]:
        """Everything from here to the end of every partition."""
        found: list[Message] = []
        until = time.monotonic() + seconds
        while not all(self._at_end.values()):
            assert time.monotonic() < until, "a topic could not be read to its end"
            found += self.poll()
        return found

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_all(bootstrap: str, prefix: str, *names: str, committed: bool = True) -> list[Message]:
    """All records of some topics, as a consumer of this isolation level sees them."""
    with Follower(bootstrap, prefix, names, committed=committed) as follower:
        return follower.to_end()


def header(message: Message, name: str) -> bytes | None:
    """The value of a record's header; None where it has none of this name."""
    value: bytes | None = dict(message.headers() or []).get(name)
    return value


def results(messages: Iterable[Message]) -> list[RequestFinished]:
    """The terminal results in records of `llm.results`."""
    return [RequestFinished.model_validate_json(message.value()) for message in messages]


def place_of(result: RequestFinished) -> Slot:
    """Where the request of a result stood."""
    source = result.source
    return Slot(source.topic, source.partition, source.offset)


def aborted_records(bootstrap: str, prefix: str) -> dict[str, int]:
    """Topic -> records in its log that no read_committed consumer will ever see; count when all is at rest."""

    def count(committed: bool) -> Counter[str]:
        messages = read_all(bootstrap, prefix, *TRANSACTIONAL, committed=committed)
        return Counter(str(message.topic()).removeprefix(prefix) for message in messages)

    # in this order, what is committed in between cannot pass for aborted
    everything, visible = count(False), count(True)
    return {name: everything[name] - visible[name] for name in TRANSACTIONAL}


class Ends:
    """Where topics end: what was written, and what of it is decided."""

    def __init__(self, bootstrap: str, prefix: str, names: Sequence[str]) -> None:
        self._admin = AdminClient(kafka.common(settings(bootstrap, prefix)))
        self._parts = []
        for name in names:
            topic = f"{prefix}{name}"
            described = self._admin.list_topics(topic, timeout=60).topics[topic]
            self._parts += [TopicPartition(topic, number) for number in described.partitions]

    def written(self) -> int:
        """Offsets used so far, markers included."""
        return sum(self._offsets(IsolationLevel.READ_UNCOMMITTED).values())

    def open(self) -> bool:
        """Whether some partition holds records of a transaction that is still open."""
        # the stable end first: what is decided in between may only hide an open transaction, not invent one
        stable = self._offsets(IsolationLevel.READ_COMMITTED)
        return self._open_beyond(stable)

    def _open_beyond(self, stable: dict[tuple[str, int], int]) -> bool:
        high = self._offsets(IsolationLevel.READ_UNCOMMITTED)
        behind = {slot for slot, offset in high.items() if offset > stable[slot]}
        if not behind:
            return False
        again = self._offsets(IsolationLevel.READ_COMMITTED)
        return any(again[slot] < high[slot] for slot in behind)

    def _offsets(self, isolation: Any) -> dict[tuple[str, int], int]:
        spec = {part: OffsetSpec.latest() for part in self._parts}
        futures = self._admin.list_offsets(spec, isolation_level=isolation, request_timeout=60)
        return {(part.topic, part.partition): future.result().offset for part, future in futures.items()}


def committed_offsets(bootstrap: str, prefix: str, service: str, topic: str) -> dict[int, int]:
    """Partition -> where a service's group of the topic's lane stands in it."""
    config = kafka.common(settings(bootstrap, prefix))
    group = kafka.Names(prefix).group(service, lane_of(topic))
    consumer = Consumer({**config, "group.id": group, "enable.auto.commit": False})
    try:
        name = f"{prefix}{topic}"
        described = consumer.list_topics(name, timeout=60).topics[name]
        parts = [TopicPartition(name, number) for number in described.partitions]
        return {part.partition: max(0, part.offset) for part in consumer.committed(parts, timeout=60)}
    finally:
        consumer.close()
