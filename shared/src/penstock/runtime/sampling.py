"""What happens to the trace of a record that is not sampled: its context goes on as it came, and no span is made.

Making a span costs tens of microseconds, more than all else that the runtime does to a record. Whether a
trace is sampled is decided once, at its source, by the standard OTEL_TRACES_SAMPLER; a record that fails or is
blocked gets its span all the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
MAX_CONTEXT_BYTES = 1_024

KEPT = "penstock.kept"
"""True on a span that was made although its trace is not sampled: a failed or a blocked record."""

_VERSION_0 = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PROPAGATOR = TraceContextTextMapPropagator()

Headers = Iterable[tuple[str, bytes | None]]


class Unrecorded(trace.NonRecordingSpan):
    """Stands for a record's span where none is made; its context is read from the headers only when asked for."""

    def __init__(self, traceparent: bytes, tracestate: bytes | None = None) -> None:
        self._traceparent = traceparent
        self._tracestate = tracestate
        self._read: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """The producer's context."""
        if self._read is None:
            self._read = trace.get_current_span(extract(self.headers())).get_span_context()
        return self._read

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded elsewhere."""
        return bool(int(self._traceparent[-2:], 16) & TraceFlags.SAMPLED)

    def headers(self) -> list[tuple[str, bytes]]:
        """The context as it came."""
        headers = [(TRACEPARENT, self._traceparent)]
        if self._tracestate is not None:
            headers.append((TRACESTATE, self._tracestate))
        return headers


class Keeping(Sampler):
    """Another sampler, except that a span marked KEPT is always recorded."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(  # noqa: PLR0917  # the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """As the other sampler says, where the span is not marked."""
        if attributes is not None and attributes.get(KEPT):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Names both."""
        return f"Keeping{{{self._inner.get_description()}}}"


def passed(headers: Mapping[str, bytes | None]) -> Unrecorded | None:
    """The context in a record's headers, untouched; None where there is none or it is of another form."""
    traceparent, tracestate = headers.get(TRACEPARENT), headers.get(TRACESTATE)
    if traceparent is None or len(traceparent) != 55 or _VERSION_0.fullmatch(traceparent) is None:
        return None
    if tracestate is not None and (len(tracestate) > MAX_CONTEXT_BYTES or not tracestate.isascii()):
        tracestate = None
    return Unrecorded(traceparent, tracestate)


def begun(sampler: Sampler) -> Unrecorded:
    """A new trace at its source, in a process that records nothing itself; the sampler decides for those after it."""
    trace_id = random.getrandbits(128) or 1
    sampled = sampler.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE
    return Unrecorded(b"00-%032x-%016x-%02x" % (trace_id, random.getrandbits(64) or 1, sampled))


def extract(headers: Headers) -> Context:
    """The producer's context from `traceparent` and `tracestate`; an empty one where there is none or it is bad."""
    carrier = {
        name: value.decode("ascii", "replace")
        for name, value in headers
        if name in (TRACEPARENT, TRACESTATE) and value is not None and len(value) <= MAX_CONTEXT_BYTES
    }
    return _PROPAGATOR.extract(carrier, context=Context())
