"""OpenTelemetry set-up, and every span name and attribute in one place.

A single record's `process` span is the child of its producer's `send` span, so a request is one tree:

    send llm.requests                     upstream, where it traces
    └── process llm.requests              preprocess
        └── send llm.preprocessed
            └── process llm.preprocessed  anonymize
                └── ...

Names follow the messaging and GenAI semantic conventions, which are still in development. No text of
prompts or answers goes into a span. What becomes of traces that are not sampled is `sampling`'s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagate import set_global_textmap
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from penstock import __version__
from penstock.contracts.errors import ConfigurationError
from penstock.runtime import sampling
from penstock.runtime.sampling import KEPT, Keeping, Unrecorded, extract
from penstock.runtime.stage import Record

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
CONSUMER_GROUP = "messaging.consumer.group.name"
OFFSET = "messaging.kafka.offset"
CONVERSATION = "gen_ai.conversation.id"
REQUEST_ID = "penstock.request.id"
TENANT = "penstock.tenant"
STATUS = "penstock.status"
ERROR_TYPE = "error.type"
ATTEMPTS_BEFORE = "penstock.attempts_before"
REDRIVE_TRACE = "penstock.redrive.trace_id"
REDRIVE_OF = "penstock.redrive.of"

_PROPAGATOR = TraceContextTextMapPropagator()
_NONE: Mapping[str, AttributeValue] = {}
_TRACER = trace.get_tracer("penstock.runtime", __version__)


@dataclass(frozen=True)
class _Policy:
    """What this process records. Without `configure` it is the SDK's default."""

    exporting: bool = True
    parent_decides: bool = True
    """A trace that is not sampled at its source is recorded nowhere."""
    sampler: Sampler = DEFAULT_ON


_policy = _Policy()


def configure(service: str, instance: str) -> TracerProvider:
    """Install the tracer provider of this process.

    The exporter is named by OTEL_TRACES_EXPORTER: `otlp`, `zipkin` or `none` (the default: nothing leaves
    the process unasked); where it sends to, and sampling, by the standard OTEL_* variables.
    """
    resource = Resource.create(
        {
            SERVICE_NAME: f"penstock-{service}",
            SERVICE_NAMESPACE: "penstock",
            SERVICE_INSTANCE_ID: instance,
            SERVICE_VERSION: __version__,
        }
    )
    global _policy  # noqa: PLW0603  # like the provider itself, one for each process
    provider = TracerProvider(resource=resource)
    sampler = provider.sampler
    provider.sampler = Keeping(sampler)
    exporter = _exporter(os.environ.get("OTEL_TRACES_EXPORTER", "none"))
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1_000))
    _policy = _Policy(
        exporting=exporter is not None,
        parent_decides=os.environ.get("OTEL_TRACES_SAMPLER", "parentbased_always_on").startswith("parentbased"),
        sampler=sampler,
    )
    trace.set_tracer_provider(provider)
    set_global_textmap(_PROPAGATOR)
    return provider


def _exporter(name: str) -> SpanExporter | None:
    if name == "none":
        return None
    if name == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # heavy

        return OTLPSpanExporter()
    if name == "zipkin":
        from opentelemetry.exporter.zipkin.json import ZipkinExporter  # noqa: PLC0415  # heavy

        return ZipkinExporter()
    raise ConfigurationError(f"OTEL_TRACES_EXPORTER: expected otlp, zipkin or none, got {len(name)} other characters")


def tracer() -> trace.Tracer:
    """The runtime's own tracer."""
    return _TRACER


def inject(span: trace.Span) -> list[tuple[str, bytes]]:
    """`traceparent` and `tracestate` headers that make what follows a child of `span`."""
    if isinstance(span, Unrecorded):
        return span.headers()
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return [(name, value.encode()) for name, value in carrier.items()]


def start_process(record: Record, topic: str, group: str, start_ns: int) -> trace.Span:
    """The span of one record's way through a stage; `topic` is its declared name.

    An Unrecorded one, which stands for the producer's, where the trace is not sampled.
    """
    came = sampling.passed(record.named)
    if not _policy.exporting:
        return came or sampling.begun(_policy.sampler)
    if came is not None and _policy.parent_decides and not came.sampled:
        return came
    return _process_span(extract(record.headers), record, topic, group, start_ns=start_ns)


def keep(span: trace.Span, record: Record, topic: str, group: str, start_ns: int) -> trace.Span:
    """The span of a record that failed or was blocked: made now where its trace is not sampled."""
    if not _policy.exporting or span.is_recording() or not span.get_span_context().is_valid:
        return span
    context = trace.set_span_in_context(span, Context())
    return _process_span(context, record, topic, group, start_ns=start_ns, more={KEPT: True})


def _process_span(
    context: Context,
    record: Record,
    topic: str,
    group: str,
    *,
    start_ns: int,
    more: Mapping[str, AttributeValue] = _NONE,
) -> trace.Span:
    return tracer().start_span(
        f"process {topic}",
        context=context,
        kind=SpanKind.CONSUMER,
        start_time=start_ns,
        attributes={
            SYSTEM: "kafka",
            OPERATION_NAME: "process",
            OPERATION_TYPE: "process",
            DESTINATION: record.topic,
            PARTITION: str(record.partition),
            CONSUMER_GROUP: group,
            OFFSET: record.offset,
            **more,
        },
    )


def start_send(parent: trace.Span, topic: str, destination: str) -> trace.Span:
    """The span of one record's sending; `topic` is the declared name, `destination` the broker's."""
    if isinstance(parent, Unrecorded):
        return parent
    return tracer().start_span(
        f"send {topic}",
        context=trace.set_span_in_context(parent, Context()),
        kind=SpanKind.PRODUCER,
        attributes={
            SYSTEM: "kafka",
            OPERATION_NAME: "send",
            OPERATION_TYPE: "send",
            DESTINATION: destination,
        },
    )


def start_redrive(topic: str, destination: str, *, of: str, trace_id: str | None, span_id: str | None) -> trace.Span:
    """The root span of a dead letter's new trace, linked with the one in which it failed.

    The old trace's id is an attribute too: some viewers drop links, and a link needs a span.
    """
    links = []
    attributes: dict[str, AttributeValue] = {
        SYSTEM: "kafka",
        OPERATION_NAME: "redrive",
        OPERATION_TYPE: "send",
        DESTINATION: destination,
        REDRIVE_OF: of,
    }
    if trace_id is not None:
        attributes[REDRIVE_TRACE] = trace_id
        if span_id is not None:
            failed_in = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
            links.append(Link(failed_in))
    return tracer().start_span(
        f"redrive {topic}", context=Context(), kind=SpanKind.PRODUCER, attributes=attributes, links=links
    )


def annotate(span: trace.Span, attributes: dict[str, AttributeValue]) -> None:
    """Add attributes; names from this module."""
    if span.is_recording():
        span.set_attributes(attributes)


def failed(span: trace.Span, code: str) -> None:
    """Mark a span as failed with an error code; never with a message, which is for the result."""
    span.set_attribute(ERROR_TYPE, code)
    span.set_status(Status(StatusCode.ERROR, code))
