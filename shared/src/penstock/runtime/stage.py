"""The interface that a stage implements, and the plain data it is given.

A stage is a function of event and configuration: clock, ids and state come in from outside. It knows
no Kafka, no environment and no telemetry set-up; it may open spans under `Inbound.span`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from opentelemetry import trace

from penstock.contracts.base import Message
from penstock.contracts.delays import Delayed
from penstock.contracts.errors import PenstockError, StageError
from penstock.contracts.events import Event, Source, TokensGenerated
from penstock.contracts.headers import RETRY_CODE
from penstock.contracts.results import Status

E = TypeVar("E", bound=Event)

Outcome = Message | PenstockError
"""What becomes of a record: the next event, a terminal result, or the error that ends or delays it."""


# neither is frozen: a frozen one takes four times as long to make, and they are made for each record
@dataclass(slots=True)
class Record:
    """A consumed record, to be left as it is; where it holds a claim, with the value that it stands for."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    in_topic: bytes | None = None
    """Of a record whose `value` was fetched by its claim: the claim, as it stands in the topic."""
    headers_readable: bool = True
    """False where the client could not read them, which leaves `headers` empty."""
    _named: dict[str, bytes | None] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def named(self) -> Mapping[str, bytes | None]:
        """The headers by name, the last of each."""
        if self._named is None:
            self._named = dict(self.headers)
        return self._named

    @property
    def original(self) -> bytes | None:
        """The value byte for byte as it stands in the topic."""
        return self.value if self.in_topic is None else self.in_topic

    @property
    def delayed(self) -> Delayed | None:
        """Of a record that was tried before and put back: its history. What claims another partition's is not one."""
        if not self.headers or self.headers[-1][0] != RETRY_CODE or (found := Delayed.of(self.headers)) is None:
            return None
        place = found.retry_of
        mine = (place.topic, place.partition) == (self.topic, self.partition) and place.offset < self.offset
        return found if mine else None

    @property
    def source(self) -> Source:
        """Where the record stood first, delays left out of account: what identifies a request."""
        delayed = self.delayed
        if delayed is not None:
            return delayed.retry_of
        return Source(topic=self.topic, partition=self.partition, offset=self.offset)


@dataclass(slots=True)
class Inbound:
    """One record handed to a stage, to be left as it is.

    `event` is None only for the stage that reads `llm.requests`.
    """

    record: Record
    now_ms: int
    """The clock: when this batch began, milliseconds since the epoch."""
    event: Event | None = None
    span: trace.Span = field(default=trace.INVALID_SPAN)
    """The record's `process` span; its context is the parent of any span a stage opens."""

    def expect(self, kind: type[E]) -> E:
        """The event as `kind`; raises StageError where the runtime handed in another one."""
        if not isinstance(self.event, kind):
            raise StageError(f"expected {kind.__name__}, got {type(self.event).__name__}", code="unexpected_event")
        return self.event

    @property
    def trace_id(self) -> str | None:
        """The request's trace id in hexadecimal, None where tracing is off."""
        context = self.span.get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    @property
    def span_id(self) -> str | None:
        """Of the record's own span; None where tracing is off."""
        context = self.span.get_span_context()
        return trace.format_span_id(context.span_id) if context.is_valid else None


class Stage(Protocol):
    """What a service implements."""

    @property
    def name(self) -> str:
        """Short lower-case name; the service's, its consumer group's and its spans'."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """What makes this stage's output what it is (release, policy, model digests); added to each event."""
        ...

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        """One outcome for each record, in order. An exception fails the batch; the runtime then isolates the record."""
        ...


class Job(Protocol):
    """One record that an unordered stage works on. All methods may be called from any thread."""

    @property
    def inbound(self) -> Inbound:
        """The record."""
        ...

    def first_output(self) -> None:
        """Say that the first token of the answer is there; admission goes by the time it took."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """Hand in what became of the record; only the first call counts, and none after a cancellation."""
        ...


@runtime_checkable
class UnorderedStage(Protocol):
    """A stage whose records take long and finish in any order, many at a time. Its methods return at once."""

    @property
    def name(self) -> str:
        """As of Stage."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """As of Stage."""
        ...

    def room(self) -> int:
        """How many more records it would start now; the rest waits in the runtime and in Kafka."""
        ...

    def start(self, job: Job) -> None:
        """Begin a record. An exception is a bug of the stage: the record becomes a dead letter."""
        ...

    def cancel(self, job: Job) -> None:
        """Give a record up: what it holds is free within one step. Its `finish` no longer counts, or is under way."""
        ...

    def ended(self, inbound: Inbound, status: Status) -> None:
        """A record, begun or not, has a terminal result that is not its answer: `cancelled`, `expired`, `failed`.

        After its `cancel`, where that was called. Of what another process takes over it is not told.
        """
        ...

    def close(self) -> None:
        """Give up all that is left, at the end of the process."""
        ...


class PerRecord(ABC):
    """A stage that takes records one at a time. PenstockErrors raised by `process_one` become outcomes."""

    @abstractmethod
    def process_one(self, inbound: Inbound) -> Message:
        """The next event or the terminal result of one record; raises PenstockError."""

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        """One outcome for each record, in order."""
        return [self._outcome(inbound) for inbound in batch]

    def _outcome(self, inbound: Inbound) -> Outcome:
        try:
            return self.process_one(inbound)
        except PenstockError as error:
            return error.kept()


class State(Protocol):
    """Keyed text that survives restarts. Writes become visible to others with the batch's transaction."""

    def get(self, key: str) -> str | None:
        """The newest value, None where there is none."""
        ...

    def put(self, key: str, value: str) -> None:
        """Set a value, in this batch's transaction."""
        ...


class TokenSink(Protocol):
    """Where an inference stage sends streamed text at once, outside the transaction (at least once)."""

    def send(self, tokens: TokensGenerated, inbound: Inbound) -> None:
        """Publish a piece; waits for the broker only while the client's queue is full."""
        ...

    def when_delivered(self, request_id: str, then: Callable[[], None]) -> None:
        """Call `then` once the broker has all that was sent of a request, or refused it: at once where it already has.

        An answer that counts as given before its stream has arrived is not generated again after a crash, and its
        reader would wait for the rest in vain. In any thread; `then` must not raise.
        """
        ...
