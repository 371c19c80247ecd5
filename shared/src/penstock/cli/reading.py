"""Reading topics from outside any group: new results as they come, the newest ones, all there are.

Everything is read committed: what an aborted transaction wrote is never shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from penstock.cli.errors import CommandError
from penstock.cli.target import Bounds, Target, bounds
from penstock.contracts.headers import REQUEST_ID
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import RESULTS
from penstock.runtime import kafka
from penstock.runtime.claims import Claims

_BATCH = 500
_STALLED_S = 30.0
"""A scan that gets nothing for this long although more is there gives up."""

Progress = Callable[[int, int | None], None]
"""Called with how many offsets were passed and how many there are."""

FINAL_ERRORS = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""What waiting does not mend."""


@dataclass(frozen=True, slots=True)
class Read:
    """One committed record."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    key: bytes | None = None

    def header(self, name: str) -> bytes | None:
        """The last header of this name."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


def result_of(record: Read, claims: Claims) -> RequestFinished:
    """The result in a record of `llm.results`, fetched where the record holds a claim.

    Raises CommandError where it is none, and what `Claims.resolve` raises.
    """
    try:
        return RequestFinished.model_validate_json(claims.resolve(RESULTS, record.value, record.headers) or b"")
    except ValidationError:
        raise CommandError(
            f"llm.results partition {record.partition} offset {record.offset} holds {len(record.value or b'')} bytes "
            "that are no result of this release; upgrade this command, or find out what else writes there"
        ) from None


class LiveResults:
    """What is committed to `llm.results` after this object was made."""

    def __init__(self, target: Target) -> None:
        topic = target.topic(RESULTS)
        partitions = target.partitions(RESULTS)
        self._reader = target.reader()
        ends = bounds(self._reader, topic, partitions)
        self._reader.assign([TopicPartition(topic, number, ends[number].high) for number in partitions])

    def records(self, timeout_s: float) -> list[Read]:
        """The records of results that have come; waits for the first one."""
        first = self._reader.poll(timeout_s)
        if first is None:
            return []
        batch = [first, *self._reader.consume(_BATCH, timeout=0)]
        return [record for message in batch if (record := record_of(message)) is not None]

    def __enter__(self) -> LiveResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()


def scan(target: Target, name: str, *, progress: Progress | None = None) -> Iterator[Read]:
    """All records that the topic holds now, in the order of each partition."""
    reader = target.reader()
    try:
        yield from read_spans(
            reader, target.topic(name), bounds(reader, target.topic(name), target.partitions(name)), progress
        )
    finally:
        reader.close()


def newest(target: Target, name: str, limit: int, *, progress: Progress | None = None) -> list[Read]:
    """The last `limit` records by time, oldest first."""
    return tail(target, name, limit, progress=progress)[-limit:]


def tail(
    target: Target,
    name: str,
    limit: int,
    *,
    counted: Callable[[Read], bool] = lambda _: True,
    progress: Progress | None = None,
) -> list[Read]:
    """The end of the topic by time, oldest first: enough for the last `limit` records that are `counted`."""
    topic = target.topic(name)
    partitions = target.partitions(name)
    reader = target.reader()
    try:
        ends = bounds(reader, topic, partitions)
        span = limit
        while True:
            # transactions leave markers between records, so a span of offsets may hold fewer records
            starts = {n: Bounds(max(end.low, end.high - span), end.high) for n, end in ends.items()}
            found = list(read_spans(reader, topic, starts, progress))
            complete = all(starts[number].low == ends[number].low for number in ends)
            if complete or _enough(filter(counted, found), starts, ends, limit):
                break
            span *= 4
    finally:
        reader.close()
    return sorted(found, key=lambda record: (record.timestamp_ms, record.partition, record.offset))


def by_request_id(target: Target, name: str, request_id: str, *, progress: Progress | None = None) -> list[Read]:
    """The records of one request, found by header without parsing the others."""
    wanted = request_id.encode()
    return [record for record in scan(target, name, progress=progress) if record.header(REQUEST_ID) == wanted]


def _enough(found: Iterable[Read], starts: dict[int, Bounds], ends: dict[int, Bounds], limit: int) -> bool:
    # any one partition may hold all of the newest records: each cut one must yield as many as are wanted
    counts = dict.fromkeys(starts, 0)
    for record in found:
        counts[record.partition] += 1
    return all(counts[number] >= limit or starts[number].low == ends[number].low for number in starts)


def read_spans(
    reader: Consumer, topic: str, spans: dict[int, Bounds], progress: Progress | None = None
) -> Iterator[Read]:
    """The records of these spans of the topic, in the order of each partition; ends where the topic does."""
    position = {number: span.low for number, span in spans.items() if span.low < span.high}
    total = sum(spans[number].high - spans[number].low for number in position)
    reader.assign([TopicPartition(topic, number, offset) for number, offset in position.items()])
    open_partitions = set(position)
    heard = time.monotonic()
    while open_partitions:
        messages = reader.consume(_BATCH, timeout=0.1)
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > _STALLED_S:
            raise CommandError(
                f"the broker delivered nothing of {topic} for {_STALLED_S:.0f} s although more is there: "
                "a transaction may be open; try again, and look at `penstock status`"
            )
        for message in messages:
            number = message.partition()
            record = record_of(message)
            position[number] = message.offset() + (1 if record is not None else 0)
            if position[number] >= spans[number].high or record is None:
                open_partitions.discard(number)  # the end was reached, be it by a transaction's marker
            if record is not None and record.offset < spans[number].high:
                yield record
        if progress is not None:
            progress(sum(min(at, spans[n].high) - spans[n].low for n, at in position.items()), total)
    reader.unassign()


def record_of(message: Message) -> Read | None:
    """The record, None where there is none yet; raises KafkaException for errors that the client cannot mend."""
    error = message.error()
    if error is not None:
        if error.fatal() or error.code() in FINAL_ERRORS:
            raise KafkaException(error)
        return None  # a partition's end, or a broker that moves or restarts: the client goes on by itself
    headers = tuple((name, _bytes(value)) for name, value in kafka.headers_of(message) or ())
    return Read(message.partition(), message.offset(), message.timestamp()[1], message.value(), headers, message.key())


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
