"""Where a consumer group stands in its partitions: its committed offsets, asked for until the broker tells them.

A read_committed consumer asks for stable offsets: while a transaction is open that commits some of them, as
after its process died, the broker has them waited for. So once they are told, what their last owner wrote with
them can be read too. What the metadata beside an offset says, `progress` knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from penstock.runtime.progress import BadMetadata, decode

_log = structlog.get_logger()

LIMIT_S = 60.0
"""How long a rebalance may wait for them; the process ends then, and its successor asks again."""
CALL_TIMEOUT_S = 10.0
PAUSE_S = 0.2

HANGING: Final = (
    "if it goes on after a restart, a transaction hangs on the group's offsets: docs/operations.md, "
    "A transaction that hangs"
)

_UNDECIDED: Final = frozenset({KafkaError._TIMED_OUT, KafkaError.UNSTABLE_OFFSET_COMMIT})
"""What the client says while the broker waits for the end of a transaction."""
_RETRIABLE: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._RETRY,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""What passes by itself, as the protocol has it. Outside transactions the client does not set `retriable()`."""


def is_retriable(error: KafkaError) -> bool:
    """Whether the same question may be answered a little later."""
    return not error.fatal() and error.code() in _RETRIABLE


def ask(consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
    """The committed offset of each partition, negative where there is none, with its metadata; asked for once.

    Raises KafkaException with the call's error, or with that of a partition: one that does not pass, if any.
    """
    if not partitions:
        return []
    found: list[TopicPartition] = consumer.committed(list(partitions), timeout=CALL_TIMEOUT_S)
    errors = [one.error for one in found if one.error is not None]
    if errors:
        raise KafkaException(min(errors, key=is_retriable))
    return found


def committed(
    consumer: Consumer,
    partitions: Sequence[TopicPartition],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> list[TopicPartition]:
    """What `ask` answers, asked for again while its errors are retriable, for LIMIT_S; raises the last one then."""
    until = monotonic() + LIMIT_S
    while True:
        try:
            return ask(consumer, partitions)
        except KafkaException as error:
            if not is_retriable(error.args[0]):
                raise
            if monotonic() > until:
                if error.args[0].code() in _UNDECIDED:
                    _log.error("runtime.offsets.undecided", waited_s=LIMIT_S, to_do=HANGING)
                raise
        pause(PAUSE_S)


def ahead(known: TopicPartition) -> frozenset[int]:
    """What is finished beyond a committed offset; nothing where none is committed, or its metadata is not ours.

    Metadata that is not of this offset is logged: somebody set the group's offsets by hand, and from there we go on.
    """
    if known.offset < 0:
        return frozenset()
    try:
        return decode(known.offset, known.metadata)
    except BadMetadata as error:
        _log.warning("runtime.progress.refused", topic=known.topic, partition=known.partition, why=str(error))
        return frozenset()
