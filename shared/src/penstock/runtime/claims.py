"""The claim check: large values go to a store, records carry a claim; readers get the value back, checked.

For services and for programs that send requests or read results themselves:

    claims = Claims.open("s3://bucket/penstock")
    kept = claims.check_in("llm.requests", body, now_ms)        # before producing: kept.value, kept.headers
    body = claims.resolve("llm.results", record_value, headers)  # after consuming

A value is stored before its record is written, so a claim never runs ahead of its object. An object whose record
was never committed is an orphan, and collected by age (`penstock claims gc`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from pydantic import ValidationError

from penstock.contracts.claims import CLAIM, Claim, object_name
from penstock.contracts.errors import BackendUnavailable, LimitExceeded, StageError, UnsupportedSchema
from penstock.contracts.topics import DEAD_LETTERS, RETRIES, claimable, load_topics
from penstock.runtime.claim_stores import (
    VARIABLE,
    ClaimStore,
    ObjectMissing,
    ObjectTooLarge,
    Stored,
    open_store,
    unavailable,
)
from penstock.runtime.kafka import RECORD_OVERHEAD_BYTES
from penstock.runtime.stage import Record

_log = structlog.get_logger()

T = TypeVar("T")

THRESHOLD_BYTES = 524_288
MAX_BYTES = 16_777_216
PORTION_BYTES = 67_108_864
"""Most bytes of claimed values in memory at a time."""
MAX_CLAIM_BYTES = 1_024
"""A claim is small; what is larger is none."""

_TOPICS = {topic.name: topic for topic in load_topics()}

Headers = Iterable[tuple[str, bytes | str | None]]
Waiting = Callable[[int], None]
"""Waits before an attempt, given its number (from 2); raises where the process stops."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What to write for a value: itself, or its claim and the header that says so."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Claims:
    """The claim check of one process: limits always, a store where one is configured."""

    def __init__(
        self,
        store: ClaimStore | None = None,
        *,
        threshold: int = THRESHOLD_BYTES,
        most: int = MAX_BYTES,
        counted: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`threshold` and `most` are bytes; `counted` is told of each object `stored` and `fetched`."""
        self.store = store
        self._threshold = threshold
        self._most = most
        self._counted = counted
        self._plain = {topic: min(self.limit(topic), _fits(topic), threshold if store else most) for topic in _TOPICS}
        """Topic -> what a value may have to go as it is, whatever else holds for the topic."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        threshold: int = THRESHOLD_BYTES,
        most: int = MAX_BYTES,
        attempts: int = 1,
        waiting: Waiting = lambda _: None,
        counted: Callable[[str], None] = lambda _: None,
    ) -> Claims:
        """With the store at `url` (none where it is empty), calls to it tried `attempts` times.

        Raises ConfigurationError.
        """
        store = _Retrying(open_store(url), attempts, waiting) if url else None
        return cls(store, threshold=threshold, most=most, counted=counted)

    def limit(self, topic: str) -> int:
        """The most bytes that a value of a topic may have; with a store, however few of them the topic takes."""
        return self._most if self.store is not None else _fits(topic)

    def check_in(self, topic: str, value: bytes, now_ms: int) -> Kept:
        """Store a value over the threshold; `topic` is the declared name.

        Raises LimitExceeded over the hard limit and BackendUnavailable where the store does not take it.
        """
        if len(value) <= self._plain[topic]:
            return Kept(value)
        limit = self.limit(topic)
        if len(value) > limit:
            raise self._too_large(topic, len(value), limit)
        if self.store is None or not claimable(topic) or len(value) <= min(self._threshold, _fits(topic)):
            return Kept(value)
        digest = hashlib.sha256(value).hexdigest()
        day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
        claim = Claim(object=object_name(_TOPICS[topic].claim_folder, day, digest), bytes=len(value), sha256=digest)
        self.store.put(claim.object, value)
        self._counted("stored")
        return Kept(claim.encode(), ((CLAIM, Claim.schema_ref().encode()),))

    def resolve(self, topic: str, value: bytes | None, headers: Headers | None) -> bytes | None:
        """The value that a record stands for: its own, or the object that its claim names.

        Raises LimitExceeded, StageError (`invalid_claim`, `claim_missing`, `claim_mismatch`), UnsupportedSchema
        and BackendUnavailable.
        """
        claim = claim_in(topic, value, headers)
        return value if claim is None else self.fetch(topic, claim)

    def fetch(self, topic: str, claim: Claim) -> bytes:
        """The bytes that a claim stands for, their number and digest checked; raises as `resolve` does."""
        if claim.bytes > self._most:
            raise self._too_large(topic, claim.bytes, self._most)
        try:
            value = self._need_store().get(claim.object, claim.bytes)
        except ObjectMissing:
            raise StageError(
                f"the claimed object {claim.object} is not in the store: it was deleted, or is in another one",
                code="claim_missing",
                field="claim",
            ) from None
        except ObjectTooLarge as error:
            raise _mismatch(claim, f"{error.size} bytes, not {claim.bytes}") from None
        if len(value) != claim.bytes:
            raise _mismatch(claim, f"{len(value)} bytes, not {claim.bytes}")
        if hashlib.sha256(value).hexdigest() != claim.sha256:
            raise _mismatch(claim, "another digest")
        self._counted("fetched")
        return value

    def opened(self, record: Record, topic: str) -> Record:
        """The record with the value that it stands for, its own kept beside it; raises as `resolve` does."""
        if not has_claim(record.headers):
            return record
        return replace(record, value=self.resolve(topic, record.value, record.headers), in_topic=record.value)

    def portions(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """The records in their order, cut so that the claimed values of each portion fit in memory together."""
        if not any(CLAIM in record.named for record in records):
            yield records
            return
        portion: list[Record] = []
        size = 0
        for record in records:
            claimed = min(self._most, _claimed_bytes(record))
            if portion and claimed and size + claimed > PORTION_BYTES:
                yield portion
                portion, size = [], 0
            portion.append(record)
            size += claimed
        yield portion

    def holds(self, claim: Claim) -> bool:
        """Whether the object is in the store; raises BackendUnavailable."""
        return self._need_store().stat(claim.object) is not None

    def renew(self, topic: str, claim: Claim) -> bytes:
        """Make an object as young as new, because another record will lead to it; its bytes. Raises as `resolve`."""
        value = self.fetch(topic, claim)
        self._need_store().put(claim.object, value)
        return value

    def _need_store(self) -> ClaimStore:
        if self.store is None:
            raise unavailable(f"the record's value is in a claim store, and none is configured here; set {VARIABLE}")
        return self.store

    def _too_large(self, topic: str, size: int, limit: int) -> LimitExceeded:
        way_out = (
            "raise PENSTOCK_CLAIM_MAX_BYTES in all services"
            if self.store is not None or limit == self._most
            else f"configure a store for large messages with {VARIABLE}"
        )
        return LimitExceeded(
            f"the {_TOPICS[topic].message} is {size} bytes, more than the {limit} that {topic} takes; "
            f"send a shorter request, or {way_out}",
            field="event",
            limit=limit,
        )


def has_claim(headers: Headers | None) -> bool:
    """Whether a record's value is a claim."""
    for name, _ in headers or ():  # noqa: SIM110  # each record passes here: a third of the time of any()
        if name == CLAIM:
            return True
    return False


def claim_in(topic: str, value: bytes | None, headers: Headers | None) -> Claim | None:
    """The claim in a record of a topic (its declared name), None where it has its own value.

    Raises StageError where it is none of this topic's: a claim must not lead a reader to what it may not see.
    """
    found = [text for name, text in headers or () if name == CLAIM]
    if not found:
        return None
    reference = found[-1]
    text = reference.decode("utf-8", "replace") if isinstance(reference, bytes) else reference or ""
    try:
        Claim.accepts(text)
    except UnsupportedSchema:
        raise _invalid(f"header {CLAIM} is not {Claim.schema_ref()} or older") from None
    if value is None or len(value) > MAX_CLAIM_BYTES:
        raise _invalid(f"{0 if value is None else len(value)} bytes are no claim")
    try:
        claim = Claim.model_validate_json(value)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise _invalid(f"{where or 'value'} of the claim is missing or of another form") from None
    declared = _TOPICS.get(topic)
    if declared is None or not claimable(topic):
        raise _invalid("this topic carries no claims")
    if not claim.object.startswith(f"{declared.claim_folder}/") or not claim.object.endswith(f"/{claim.sha256}"):
        raise _invalid(f"its object is not {declared.claim_folder}/YYYYMMDD/SHA-256")
    return claim


def lifetime_hours(topic: str) -> int:
    """How long a record of this topic can lead to its object: in the topic, on a retry topic, as a dead letter."""
    hours = _TOPICS[topic].retention_hours
    stages = [party for party in _TOPICS[topic].read_by if party not in ("upstream", "operator")]
    if stages:
        hours += _TOPICS[DEAD_LETTERS].retention_hours
        hours += max((_TOPICS[RETRIES[stage]].retention_hours for stage in stages if stage in RETRIES), default=0)
    return hours


def _fits(topic: str) -> int:
    return _TOPICS[topic].max_message_bytes - RECORD_OVERHEAD_BYTES


def _claimed_bytes(record: Record) -> int:
    """What the record's value will take in memory beyond itself; 0 where it is no claim, or none that can be read."""
    if not has_claim(record.headers):
        return 0
    try:
        return Claim.model_validate_json(record.value or b"").bytes
    except ValidationError:
        return 0


def _invalid(what: str) -> StageError:
    return StageError(f"not a claim of this topic: {what}", code="invalid_claim", field="claim")


def _mismatch(claim: Claim, what: str) -> StageError:
    return StageError(
        f"the object {claim.object} has {what}: it is not what was claimed, and was not processed",
        code="claim_mismatch",
        field="claim",
    )


class _Retrying:
    """A store whose calls are tried several times. Once it has failed for good, one try until it answers again."""

    def __init__(self, store: ClaimStore, attempts: int, waiting: Waiting) -> None:
        self._store = store
        self._attempts = attempts
        self._waiting = waiting
        self._down = False

    def put(self, name: str, value: bytes) -> None:
        self._insist(lambda: self._store.put(name, value))

    def get(self, name: str, most: int) -> bytes:
        return self._insist(lambda: self._store.get(name, most))

    def stat(self, name: str) -> Stored | None:
        return self._insist(lambda: self._store.stat(name))

    def list(self) -> Iterator[Stored]:
        return self._store.list()

    def delete(self, name: str) -> None:
        self._insist(lambda: self._store.delete(name))

    def _insist(self, call: Callable[[], T]) -> T:
        last = 1 if self._down else self._attempts
        attempt = 1
        while True:
            try:
                done = call()
            except BackendUnavailable:
                _log.warning("runtime.claims.unavailable", attempt=attempt)
                if attempt >= last:
                    self._down = True
                    raise
            else:
                self._down = False
                return done
            attempt += 1
            self._waiting(attempt)
