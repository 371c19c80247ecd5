"""From what a stage returned for a record to the records that are written in its place.

Conservation is decided here: each record read becomes one event, or one terminal result (with a dead
letter beside it where it failed), or, where its request id is a duplicate, a dead letter alone, or itself
once more on the stage's retry topic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, lru_cache

import structlog
from opentelemetry import trace
from pydantic_core import PydanticSerializationError

from penstock.contracts import delays
from penstock.contracts import headers as names_of
from penstock.contracts.base import Message
from penstock.contracts.delays import Delayed
from penstock.contracts.errors import BackendUnavailable, DuplicateRequest, LimitExceeded, PenstockError, StageError
from penstock.contracts.events import Event, RequestContext, StageTiming
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.ingress import context_of
from penstock.contracts.results import DeadLetter, ErrorDetail, RequestFinished, Status
from penstock.contracts.terminal import finish, status_of
from penstock.contracts.topics import DEAD_LETTERS, RETRIES, claimable, in_lane, load_topics, topic_of_kind
from penstock.runtime import telemetry
from penstock.runtime.claims import Claims
from penstock.runtime.detour import Detour
from penstock.runtime.kafka import Names
from penstock.runtime.stage import Inbound, Outcome, Record

FRAMING_BYTES = 16
"""Of a header: its lengths."""

OLDEST_MS = 3_600_000
"""A delayed record keeps its timestamp, but for what is older than this: retention goes by it."""

_LIMITS = {topic.name: topic.max_message_bytes for topic in load_topics()}

KEPT_STATUSES = frozenset({"blocked", "failed"})
"""Ends whose span is made although the trace is not sampled."""

_log = structlog.get_logger()


# not frozen: a frozen one takes four times as long to make, and there are two for each record
@dataclass(slots=True)
class Output:
    """A record to produce. `topic` is the declared name; the publisher adds the prefix."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int | None = None
    """None leaves it to the key."""
    timestamp_ms: int | None = None
    """None is the time of sending."""


@dataclass(slots=True)
class Settled:
    """What one record came to."""

    inbound: Inbound
    outputs: list[Output] = field(default_factory=list)
    status: Status | None = None
    """Of the terminal result, where there is one."""
    code: str | None = None
    """Of the error, where there is one."""
    demoted: bool = False
    """Whether this stage granted the request a lower priority than it asked for."""

    def without_claimed(self) -> Settled:
        """The same without the event and the value that were fetched: they may be large, and are done with."""
        record = replace(self.inbound.record, value=self.inbound.record.original, in_topic=None)
        return replace(self, inbound=replace(self.inbound, record=record, event=None))


class Settler:
    """Turns outcomes into outputs for one stage."""

    def __init__(
        self,
        stage: str,
        versions: Mapping[str, str],
        names: Names,
        claims: Claims | None = None,
        detour: Detour | None = None,
    ) -> None:
        self._claims = claims or Claims()
        self._detour = detour
        self._stage = stage
        self._source = f"penstock/{stage}"
        self._versions = dict(versions)
        self._names = names

    def settle(self, inbound: Inbound, outcome: Outcome, *, finished_ms: int, attempts: int = 1) -> Settled:
        """The outputs of one record, their `send` spans and the record's own span ended."""
        try:
            settled = self._settle(inbound, outcome, finished_ms, attempts)
        finally:
            inbound.span.end()
        if settled.inbound is not inbound:
            settled.inbound.span.end()
        return settled

    def delayable(self, inbound: Inbound) -> bool:
        """Whether the record can wait on a retry topic: the stage has one, and the headers still fit beside it."""
        record = inbound.record
        limit = _LIMITS.get(self._names.plain(record.topic))
        if self._stage not in RETRIES or limit is None:
            return False
        size = len(record.key or b"") + len(record.original or b"")
        size += sum(len(name) + len(value or b"") + FRAMING_BYTES for name, value in record.headers)
        return size + delays.MAX_BYTES <= limit

    def delay(self, inbound: Inbound, error: PenstockError, *, attempts: int, not_before_ms: int) -> Settled:
        """The record as it came, for the stage's retry topic; its own span ends as failed. It must be `delayable`."""
        record = inbound.record
        topic = RETRIES[self._stage]
        inbound = self._keep(inbound)
        telemetry.failed(inbound.span, error.code)
        telemetry.start_send(inbound.span, topic, self._names.topic(topic)).end()
        inbound.span.end()
        known = Delayed(attempts, not_before_ms, record.source, error.code)
        headers = [*self._original(record), *known.headers()]
        written = max(record.timestamp_ms, not_before_ms - OLDEST_MS)
        return Settled(inbound, [Output(topic, record.key, record.original, headers, timestamp_ms=written)])

    @staticmethod
    def _original(record: Record) -> Sequence[tuple[str, bytes | None]]:
        return delays.original(record.headers) if record.delayed is not None else record.headers

    def too_large(self, settled: Settled, refused: Collection[int], *, finished_ms: int) -> Settled:
        """What to write instead where the broker takes fewer bytes than declared; `refused` are ids of outputs."""
        output = next(output for output in settled.outputs if id(output) in refused)
        _log.error("runtime.record.too_large", topic=output.topic, bytes=len(output.value or b""))
        if output.topic == DEAD_LETTERS:  # the reason is kept; the bytes are where the letter's source says
            outputs = [replace(one, value=None) if one is output else one for one in settled.outputs]
            return replace(settled, outputs=outputs)
        # the record's own span has ended; what is sent is still its child
        span = trace.NonRecordingSpan(settled.inbound.span.get_span_context())
        error = LimitExceeded(
            f"the broker refused {len(output.value or b'')} bytes for {output.topic}, which declares "
            "more; correct the topic with `penstock topics apply`",
            code="record_too_large",
            field="event",
        )
        instead = self._error(replace(settled.inbound, span=span), error, finished_ms, 1)
        others = [
            one
            for one in settled.outputs
            if id(one) not in refused and not claimable(one.topic) and one.topic != DEAD_LETTERS
        ]
        return replace(instead, outputs=[*instead.outputs, *others])

    def _settle(self, inbound: Inbound, outcome: Outcome, finished_ms: int, attempts: int) -> Settled:
        try:
            if isinstance(outcome, Event):
                return self._event(inbound, outcome, finished_ms)
            if isinstance(outcome, RequestFinished):
                return self._terminal(inbound, outcome, finished_ms)
        except (LimitExceeded, BackendUnavailable) as error:
            outcome = error
        except PydanticSerializationError:
            outcome = StageError(
                f"the {type(outcome).__name__} of stage {self._stage} cannot be written as JSON", code="invalid_outcome"
            )
        if not isinstance(outcome, PenstockError):
            outcome = StageError(f"stage returned a {type(outcome).__name__}", code="unexpected_outcome")
        return self._error(inbound, outcome, finished_ms, attempts)

    def _event(self, inbound: Inbound, event: Event, finished_ms: int) -> Settled:
        context = event.context.having(
            versions={**event.context.versions, **self._versions},
            timings=(*event.context.timings, self._timing(inbound, finished_ms)),
        )
        event = event.having(context=context)
        self._identify(inbound, context)
        known = inbound.event.context.requested_priority if inbound.event else None
        demoted = context.requested_priority is not None and known is None
        return Settled(inbound, [self._message(inbound, event, context, finished_ms)], demoted=demoted)

    def _terminal(self, inbound: Inbound, result: RequestFinished, finished_ms: int) -> Settled:
        if result.status in KEPT_STATUSES:
            inbound = self._keep(inbound)
        result = result.having(
            versions={**result.versions, **self._versions},
            timings=(*result.timings, self._timing(inbound, finished_ms)),
            trace_id=inbound.trace_id,
        )
        context = RequestContext(
            request_id=result.id,
            conversation_id=result.conversation_id,
            tenant=result.tenant,
            priority=result.priority,
            submitted_ms=max(0, inbound.record.timestamp_ms),
            source=result.source,
        )
        self._identify(inbound, context)
        telemetry.annotate(inbound.span, {telemetry.STATUS: result.status})
        code = result.error.code if result.error is not None else None
        output = self._message(inbound, result, context, finished_ms)
        return Settled(inbound, [output], status=result.status, code=code)

    def _error(self, inbound: Inbound, error: PenstockError, finished_ms: int, attempts: int) -> Settled:
        context = error.context or (inbound.event.context if inbound.event else self._salvage(inbound))
        inbound = self._keep(inbound)
        telemetry.failed(inbound.span, error.code)
        if isinstance(error, DuplicateRequest):
            self._identify(inbound, context)
            letter = self._dead_letter(inbound, context, error, finished_ms, attempts)
            return Settled(inbound, [letter], code=error.code)
        event = (inbound.event or Event(context=context)).having(context=context)
        try:
            settled = self._terminal(inbound, self._refusal(event, error, finished_ms), finished_ms)
        except (LimitExceeded, BackendUnavailable):
            # the findings fill the record, or went to a store that is away: the request's end matters more
            bare = self._refusal(Event(context=context), error, finished_ms)
            settled = self._terminal(inbound, bare, finished_ms)
        if settled.status == "failed":
            settled.outputs.append(self._dead_letter(inbound, context, error, finished_ms, attempts))
        return settled

    def _refusal(self, event: Event, error: PenstockError, finished_ms: int) -> RequestFinished:
        return finish(event, status=status_of(error), now_ms=finished_ms, error=ErrorDetail.of(error, self._stage))

    def _salvage(self, inbound: Inbound) -> RequestContext:
        record = inbound.record
        return context_of(
            RequestHeaders.salvage(record.headers),
            record.source,
            record.timestamp_ms,
            key=record.key,
        )

    def _dead_letter(
        self, inbound: Inbound, context: RequestContext, error: PenstockError, finished_ms: int, attempts: int
    ) -> Output:
        record = inbound.record
        letter = DeadLetter(
            request_id=context.request_id,
            tenant=context.tenant,
            stage=self._stage,
            error=ErrorDetail.of(error, self._stage),
            attempts=attempts,
            source=record.source,
            original_timestamp_ms=record.timestamp_ms,
            failed_ms=finished_ms,
            trace_id=inbound.trace_id,
            span_id=inbound.span_id,
            versions={**context.versions, **self._versions},
        )
        span = telemetry.start_send(inbound.span, DEAD_LETTERS, self._names.topic(DEAD_LETTERS))
        span.end()
        kept = [(name, value) for name, value in self._original(record) if name != names_of.DEAD_LETTER]
        return Output(DEAD_LETTERS, record.key, record.original, [*kept, (names_of.DEAD_LETTER, letter.encode())])

    def _message(self, inbound: Inbound, message: Message, context: RequestContext, finished_ms: int) -> Output:
        topic = in_lane(topic_of_kind(message.schema_name), context.priority)
        if self._detour is not None:
            topic = self._detour.topic(topic, context)
        try:
            kept = self._claims.check_in(topic, message.encode(), finished_ms)
        except PenstockError as error:
            raise error.about(context) from None
        span = telemetry.start_send(inbound.span, topic, self._names.topic(topic))
        headers = names_of.of_event(context, schema_ref(type(message)), self._source, _iso(finished_ms))
        headers += telemetry.inject(span)
        headers += kept.headers
        if self._detour is not None:
            headers += self._detour.headers(inbound.record)
        span.end()
        return Output(topic, context.conversation_id.encode(), kept.value, headers)

    def _timing(self, inbound: Inbound, finished_ms: int) -> StageTiming:
        return StageTiming.trusted(
            stage=self._stage,
            queued_ms=float(max(0, inbound.now_ms - inbound.record.timestamp_ms)),
            processing_ms=float(max(0, finished_ms - inbound.now_ms)),
        )

    def _keep(self, inbound: Inbound) -> Inbound:
        """With a span of its own, where the trace is not sampled."""
        record = inbound.record
        topic, group = self._names.plain(record.topic), self._names.group(self._stage)
        span = telemetry.keep(inbound.span, record, topic, group, inbound.now_ms * 1_000_000)
        return inbound if span is inbound.span else replace(inbound, span=span)

    def _identify(self, inbound: Inbound, context: RequestContext) -> None:
        if not inbound.span.is_recording():
            return
        telemetry.annotate(
            inbound.span,
            {
                telemetry.REQUEST_ID: context.request_id,
                telemetry.CONVERSATION: context.conversation_id,
                telemetry.TENANT: context.tenant,
            },
        )


@cache
def schema_ref(kind: type[Message]) -> str:
    """`kind.schema_ref()`."""
    return kind.schema_ref()


@lru_cache(maxsize=16)
def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
