"""Configurations of Kafka clients, in one place, and names with the prefix applied."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import structlog
from confluent_kafka import KafkaError, Message

from penstock.contracts.events import Priority
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Record

_log = structlog.get_logger()

MAX_MESSAGE_BYTES = 33_554_432
"""The client's own limit, above every topic's: topics refuse first, by name."""


FETCH_BYTES = 1_048_576
"""Most that one answer of a broker holds, from one partition or several: a full batch as our producers send it. It is
compressed, and its records may be ten times as large in memory. Only once it is unpacked does the client see whether it
has enough, so that this bounds by how much it fetches too far. A larger batch comes whole all the same."""
FETCH_AGAIN_MS = 20
"""How long the client waits before it looks again whether what is fetched ahead has become less. Its default of a
second is more than it takes to use up all that is."""

LINGER_MS = 5
QUEUE_FULL_WAIT_S = 0.2
RECORD_OVERHEAD_BYTES = 4_096
"""Room for headers and framing under a topic's limit."""


@dataclass(frozen=True, slots=True)
class Names:
    """Topics, groups and transactional ids of one installation."""

    prefix: str

    def topic(self, name: str) -> str:
        """The topic on the broker."""
        return f"{self.prefix}{name}"

    def plain(self, topic: str) -> str:
        """The declared name of a topic on the broker."""
        return topic.removeprefix(self.prefix)

    def group(self, stage: str, lane: Priority = "interactive") -> str:
        """The stage's consumer group in a lane."""
        return f"{self.prefix}penstock-{stage}{'-bulk' if lane == 'bulk' else ''}"

    def retry_group(self, stage: str) -> str:
        """The consumer group that reads the stage's retry topic."""
        return f"{self.group(stage)}-retry"

    def transactional_id(self, stage: str, instance: str, lane: Priority = "interactive") -> str:
        """Fixed for each slot: a restart then fences its own remains at once."""
        # no instance's name may hold a colon, so no two slots share an id
        return f"{self.prefix}penstock-{stage}-{instance}{':bulk' if lane == 'bulk' else ''}"


def common(settings: ServiceSettings) -> dict[str, Any]:
    """What every client of a service needs."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": "penstock",
        "enable.metrics.push": False,
        "log.connection.close": False,
        # `rebootstrap`, the default, drops the broker a transaction's call is waiting on: that call never returns
        "metadata.recovery.strategy": "none",
        # as Java's clients have it (KIP-144); librdkafka waits up to ten seconds, as long as a transaction may last
        "reconnect.backoff.max.ms": 1_000,
        **settings.security_options(),
        **settings.kafka_options,
    }


def _fetching(settings: ServiceSettings) -> dict[str, Any]:
    """How far a consumer fetches ahead; `kafka_options` may say otherwise."""
    return {
        "fetch.wait.max.ms": 50,
        "fetch.message.max.bytes": FETCH_BYTES,
        "fetch.max.bytes": FETCH_BYTES,
        "fetch.queue.backoff.ms": FETCH_AGAIN_MS,
        "queued.max.messages.kbytes": settings.queue_max_kbytes,
        # records that are small take more memory than their bytes say
        "queued.min.messages": 2 * settings.batch_max_records,
    }


def consumer(settings: ServiceSettings, group: str) -> dict[str, Any]:
    """A stage's consumer: read committed, offsets committed by us alone."""
    member = {"group.instance.id": f"{group}-{settings.instance}"} if settings.kafka_static_membership else {}
    protocol: dict[str, Any] = (
        {"group.protocol": "consumer"}
        if settings.kafka_group_protocol == "consumer"
        else {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky"}
    )
    return {
        **_fetching(settings),
        **common(settings),
        **protocol,
        **member,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "receive.message.max.bytes": 2 * MAX_MESSAGE_BYTES,
        "statistics.interval.ms": 5_000,
    }


def reader(settings: ServiceSettings, name: str, *, committed: bool = True) -> dict[str, Any]:
    """A consumer outside any group that reads whole topics: state."""
    return {
        **_fetching(settings),
        **common(settings),
        "group.id": name,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed" if committed else "read_uncommitted",
        "enable.partition.eof": True,
        "receive.message.max.bytes": 2 * MAX_MESSAGE_BYTES,
    }


def producer(settings: ServiceSettings, transactional_id: str | None, *, linger_ms: int = LINGER_MS) -> dict[str, Any]:
    """An idempotent producer; transactional where an id is given. Records wait `linger_ms` for others to go with."""
    config: dict[str, Any] = {
        **common(settings),
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": linger_ms,
        "compression.type": "lz4",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.kbytes": 262_144,
        # a call that waits for a coordinator which has left the metadata is woken by nothing but a connection that
        # opens or closes, and heeds no time-out (librdkafka issues 5511 and 5456): idle ones close every few seconds
        "connections.max.idle.ms": 5_000,
    }
    if transactional_id is not None:
        config["transactional.id"] = transactional_id
        # a transaction that begins while the last one's markers are being written is told to come again; the client
        # waits this long, doubled each time: at its default of 100 ms a transaction after another took 101 ms, not 5
        config["retry.backoff.ms"] = 1
        config["transaction.timeout.ms"] = settings.transaction_timeout_ms
        # less than the transaction has, so that there is time to abort it before the broker does and fences us
        config["message.timeout.ms"] = settings.transaction_timeout_ms * 4 // 5
    return config


def is_fatal(error: KafkaError) -> bool:
    """Whether a consumer that returned this error will return nothing else.

    As when another member has its instance id: what it hands out then has the code, and not the flag.
    """
    return bool(error.fatal() or error.code() == KafkaError._FATAL)


# not `message.headers()`: it returns with an exception set where it fails, which the interpreter looks for in some
# forms of a call and, once it has specialized a place, not in others
_headers = operator.methodcaller("headers")


def headers_of(message: Message) -> tuple[tuple[str, bytes | None], ...] | None:
    """A message's headers; None where the client cannot read them."""
    try:
        return tuple(_headers(message) or ())
    except SystemError:
        # it takes names for UTF-8 and fails where one is not, as other clients may write them
        return None


def record_of(message: Message) -> Record:
    """A consumed message as plain data; without headers and so marked where the client cannot read them."""
    headers = headers_of(message)
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers or (),
        headers_readable=headers is not None,
    )


class Arrivals(Sequence[Record]):
    """Consumed messages as records, each made when it is asked for, to be used while it is in the cache."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages

    def __len__(self) -> int:
        return len(self.messages)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [record_of(message) for message in self.messages[index]]
        return record_of(self.messages[index])


class ErrorLog:
    """A client's `error_cb`: each kind of trouble once in a while, since the client repeats it at each attempt."""

    EVERY_S = 30.0

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Log it, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._told.get(error.name(), -self.EVERY_S) < self.EVERY_S:
            return
        self._told[error.name()] = now
        _log.warning("runtime.client.error", error=error.name(), fatal=error.fatal())


def enqueue(
    producer: Any,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    *,
    headers: Sequence[tuple[str, str | bytes | None]],
    on_delivery: Callable[[Any, Any], None] | None,
    partition: int | None = None,
    timestamp_ms: int | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Hand a record to a producer, however full its queue is; `waiting` is called each time it has to wait.

    Without `on_delivery` the caller learns of failures otherwise, as from the transaction's commit.
    Raises KafkaException where the client refuses the record at once.
    """
    as_list = headers if isinstance(headers, list) else list(headers)
    where = {} if partition is None else {"partition": partition}
    if timestamp_ms is not None:
        where["timestamp"] = timestamp_ms
    while True:
        try:
            producer.produce(topic, value, key, headers=as_list, on_delivery=on_delivery, **where)
        except BufferError:
            producer.poll(QUEUE_FULL_WAIT_S)
            waiting()
        else:
            if on_delivery is not None:
                producer.poll(0)
            return
