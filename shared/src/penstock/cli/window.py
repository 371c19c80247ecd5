"""The window of a replay: which records stand in it, and their copies under the replay's prefix.

Copies keep partition, key and order. They go out in transactions under one id, and each says where its original
stands, so that an interrupted copying goes on behind the last one, exactly once. Live topics are only read, outside
any group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from penstock.cli.errors import CommandError
from penstock.cli.letter_filter import INPUTS
from penstock.cli.reading import Progress, Read, read_spans, scan
from penstock.cli.replays import Manifest, Span
from penstock.cli.sending import wall_ms
from penstock.cli.target import ANSWER_LIMIT_S, Bounds, Target, bounds
from penstock.contracts import headers as names_of
from penstock.contracts.claims import CLAIM
from penstock.contracts.errors import RequestError, StageError
from penstock.contracts.events import Source
from penstock.contracts.ingress import request_id_of
from penstock.contracts.request import CompletionRequest
from penstock.contracts.topics import load_topics
from penstock.runtime.claims import Claims, has_claim
from penstock.runtime.kafka import enqueue

LATE_MS = 300_000
"""How much later than its timestamp a record may be appended: as long as a producer tries to deliver it."""

_NOT_COPIED = frozenset({names_of.DEADLINE, names_of.ATTEMPT, names_of.REPLAY_OF, "traceparent", "tracestate"})
_CHUNK_RECORDS = 500
_CHUNK_BYTES = 8_388_608
_TIMEOUT_S = 60.0


def inputs_of(stage: str) -> tuple[str, ...]:
    """The declared names of the topics that the stage reads its records from."""
    return tuple(topic.name for topic in load_topics() if topic.name in INPUTS and stage in topic.read_by)


def message_in(name: str) -> str:
    """The schema name of what a declared topic carries; topics of both lanes carry the same."""
    return next(topic.message for topic in load_topics() if topic.name == name)


def _raw(name: str) -> bool:
    """Whether the topic holds requests as upstream publishes them."""
    return message_in(name) == CompletionRequest.schema_name


def spans_of(live: Target, inputs: tuple[str, ...], from_ms: int, to_ms: int) -> tuple[Span, ...]:
    """The offsets in which all records of the window stand, as far as they are there now; raises NoBroker."""
    reader = live.reader()
    try:
        found: list[Span] = []
        for name in inputs:
            topic = live.topic(name)
            ends = bounds(reader, topic, live.partitions(name))
            starts = offsets_at(reader, topic, ends, from_ms)
            stops = offsets_at(reader, topic, ends, to_ms + LATE_MS)
            found += [
                Span(topic=name, partition=number, start=starts[number], end=stops[number]) for number in sorted(ends)
            ]
        return tuple(found)
    finally:
        reader.close()


def offsets_at(reader: Consumer, topic: str, ends: Mapping[int, Bounds], moment_ms: int) -> dict[int, int]:
    """Partition -> the offset of its first record of this moment or later; its end where there is none."""
    # one moment at a time: the client answers for each partition once
    asked = [TopicPartition(topic, number, moment_ms) for number in ends]
    answers = reader.offsets_for_times(asked, timeout=ANSWER_LIMIT_S)
    return {
        one.partition: ends[one.partition].high if one.offset < 0 else min(one.offset, ends[one.partition].high)
        for one in answers
    }


@dataclass(slots=True)
class Copied:
    """What stands under the replay's prefix."""

    records: dict[str, int] = field(default_factory=dict)
    """Topic -> copies."""
    behind: dict[tuple[str, int], int] = field(default_factory=dict)
    """Topic and partition -> the offset behind the last original that was copied."""
    last: dict[tuple[str, int], int] = field(default_factory=dict)
    """Topic and partition -> the offset of the last copy. All by declared names."""

    @property
    def total(self) -> int:
        """Copies in all topics."""
        return sum(self.records.values())

    def count(self, name: str) -> None:
        """One more copy."""
        self.records[name] = self.records.get(name, 0) + 1


def copied_so_far(own: Target, manifest: Manifest) -> Copied:
    """What earlier runs have copied."""
    found = Copied()
    for name in manifest.inputs:
        for record in scan(own, name):
            place = (record.header(names_of.REPLAY_OF) or b"").decode("ascii", "replace").rpartition("/")[2]
            if not place.isdigit():
                raise CommandError(
                    f"{own.topic(name)} {record.partition}:{record.offset} is no copy: another program writes there; "
                    "start anew under another prefix"
                )
            found.count(name)
            found.behind[name, record.partition] = int(place) + 1
            found.last[name, record.partition] = record.offset
    return found


def request_id_in(name: str, record: Read, topic: str) -> str:
    """The id under which the pipeline knows a record of the live `topic`, whose declared name is `name`."""
    stated = record.header(names_of.REQUEST_ID)
    if stated is not None:
        return stated.decode("utf-8", "replace")
    inside = _object(record.value).get("request_id") if _raw(name) else None
    return inside if isinstance(inside, str) else request_id_of(_source(record, topic))


@dataclass(frozen=True, slots=True)
class Copy:
    """A record to publish under the replay's prefix."""

    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def copy_of(name: str, record: Read, topic: str, claims: Claims, now_ms: int) -> Copy:
    """The record without deadline, attempts and trace, and with its place; else as it stood in the live `topic`.

    A claimed event that loses its deadline is another value, and stored as one; raises BackendUnavailable.
    """
    headers = [(key, value) for key, value in record.headers if key not in _NOT_COPIED]
    headers.append((names_of.REPLAY_OF, _source(record, topic).place.encode()))
    if _raw(name):
        if record.header(names_of.REQUEST_ID) is None:
            inside = _object(_body(name, record, claims)).get("request_id")
            if inside is None:
                # at another place another id would be derived
                headers.append((names_of.REQUEST_ID, request_id_of(_source(record, topic)).encode()))
            elif has_claim(record.headers) and isinstance(inside, str):
                # whoever reads the copies finds it without its object
                headers.append((names_of.REQUEST_ID, inside.encode("utf-8", "surrogatepass")))
        return Copy(record.value, headers)
    body = _body(name, record, claims)
    changed = _without_deadline(body)
    if not has_claim(record.headers):
        return Copy(changed, headers)
    if body is None or changed is None or changed == body:
        return Copy(record.value, headers)
    kept = claims.check_in(name, changed, now_ms)
    return Copy(kept.value, [*((key, value) for key, value in headers if key != CLAIM), *kept.headers])


def _body(name: str, record: Read, claims: Claims) -> bytes | None:
    """What the record's value stands for; None where its claim leads nowhere, which its stage will say."""
    try:
        return claims.resolve(name, record.value, record.headers)
    except (RequestError, StageError):
        return None


def _without_deadline(value: bytes | None) -> bytes | None:
    event = _object(value)
    context = event.get("context")
    if not isinstance(context, dict) or context.get("deadline_ms") is None:
        return value
    del context["deadline_ms"]
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _source(record: Read, topic: str) -> Source:
    return Source(topic=topic, partition=record.partition, offset=record.offset)


def _object(value: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}  # what it is instead, the stage says
    return found if isinstance(found, dict) else {}


class Copying:
    """Copies a window, once; raises CommandError where another run has taken the replay over."""

    def __init__(self, live: Target, own: Target, manifest: Manifest) -> None:
        self._live = live
        self._own = own
        self._manifest = manifest
        self._producer: Producer = own.transactional("replay")
        self._producer.init_transactions(_TIMEOUT_S)  # fences an earlier run, and ends what it left open
        self.copied = copied_so_far(own, manifest)
        self._tenants = {tenant.encode() for tenant in manifest.tenants}

    def run(self, tell: Progress) -> Copied:
        """Copy what is not yet copied; `tell` is told the offsets passed."""
        try:
            for name in self._manifest.inputs:
                self._topic(name, tell)
        except KafkaException as error:
            raise CommandError(
                f"the window could not be copied ({error.args[0].name()}): go on with --resume"
                + (", or leave it to the other run that has taken over" if error.args[0].fatal() else "")
            ) from None
        return self.copied

    def _topic(self, name: str, tell: Progress) -> None:
        topic = self._live.topic(name)
        spans = {
            span.partition: Bounds(max(span.start, self.copied.behind.get((name, span.partition), 0)), span.end)
            for span in self._manifest.spans
            if span.topic == name
        }
        sizes = [(span.topic, span.end - span.start) for span in self._manifest.spans]
        earlier = self._manifest.inputs[: self._manifest.inputs.index(name)]
        passed, total = sum(size for one, size in sizes if one in earlier), sum(size for _, size in sizes)
        reader = self._live.reader()
        try:
            records = read_spans(reader, topic, spans, lambda done, _: tell(passed + done, total))
            while self._chunk(name, topic, records):
                pass
        finally:
            reader.close()

    def _chunk(self, name: str, topic: str, records: Iterator[Read]) -> bool:
        """Copy some in one transaction; False where there are no more."""
        self._producer.begin_transaction()
        count = size = 0
        more = True
        try:
            while count < _CHUNK_RECORDS and size < _CHUNK_BYTES:
                record = self._next(name, records)
                if record is None:
                    more = False
                    break
                copy = copy_of(name, record, topic, self._live.claims, wall_ms())
                enqueue(
                    self._producer,
                    self._own.topic(name),
                    copy.value,
                    record.key,
                    headers=copy.headers,
                    on_delivery=self._delivered,
                    partition=record.partition,
                )
                count += 1
                size += len(copy.value or b"")
                self.copied.count(name)
            self._producer.commit_transaction(_TIMEOUT_S)
        except BaseException:
            self._abort()
            raise
        return more

    def _next(self, name: str, records: Iterator[Read]) -> Read | None:
        if self._manifest.limit is not None and self.copied.records.get(name, 0) >= self._manifest.limit:
            return None
        for record in records:
            if not self._manifest.from_ms <= record.timestamp_ms < self._manifest.to_ms:
                continue
            if not self._tenants or record.header(names_of.TENANT) in self._tenants:
                return record
        return None

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            name = str(message.topic()).removeprefix(self._own.prefix)
            self.copied.last[name, message.partition()] = message.offset()

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(_TIMEOUT_S)
        except KafkaException as error:
            if not error.args[0].fatal():  # fenced: whoever came later has aborted it
                raise
