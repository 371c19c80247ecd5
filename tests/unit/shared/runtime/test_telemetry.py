"""`penstock.runtime.telemetry`: context in and out of headers, exporters by name, marks without messages."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

from penstock.contracts.errors import ConfigurationError
from penstock.runtime import sampling, telemetry
from penstock.runtime.stage import Record

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01".encode()


def context_of(*headers: tuple[str, bytes | None]) -> trace.SpanContext:
    return trace.get_current_span(sampling.extract(headers)).get_span_context()


def test_upstreams_context_is_taken() -> None:
    context = context_of(("foreign", b"x"), ("traceparent", TRACEPARENT), ("tracestate", b"v=1"))
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (TRACE, PARENT)
    assert context.is_remote
    assert context.trace_state.get("v") == "1"


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"nonsense",
        TRACEPARENT[:-4],
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"0" * 2000,
    ],
)
def test_a_bad_context_is_none(value: bytes | None) -> None:
    assert not context_of(("traceparent", value)).is_valid


def test_an_endless_state_is_left_out() -> None:
    context = context_of(("traceparent", TRACEPARENT), ("tracestate", b"v=" + b"1" * 100 + b" " * 1000))
    assert context.is_valid
    assert not context.trace_state


def test_the_surrounding_span_is_no_parent() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("unrelated"):
        assert not context_of().is_valid
        span = tracer.start_span("mine", context=sampling.extract(()))
    assert span.get_span_context().trace_id != 0
    assert getattr(span, "parent", None) is None


def test_what_is_injected_is_extracted() -> None:
    span = TracerProvider().get_tracer("test").start_span("send")
    context = context_of(*telemetry.inject(span))
    assert context.trace_id == span.get_span_context().trace_id
    assert context.span_id == span.get_span_context().span_id
    assert telemetry.inject(trace.INVALID_SPAN) == []


def test_a_record_is_processed_under_its_producers_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "tracer", lambda: TracerProvider().get_tracer("test"))
    record = Record("p.llm.requests", 3, 118, 0, None, None, (("traceparent", TRACEPARENT),))
    span = telemetry.start_process(record, "llm.requests", "penstock-preprocess", 1)
    assert span.name == "process llm.requests"  # type: ignore[attr-defined]  # of the SDK's span
    assert f"{span.parent.span_id:016x}" == PARENT  # type: ignore[attr-defined]  # of the SDK's span
    assert span.kind is trace.SpanKind.CONSUMER  # type: ignore[attr-defined]  # of the SDK's span
    assert dict(span.attributes) == {  # type: ignore[attr-defined]  # of the SDK's span
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "p.llm.requests",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "penstock-preprocess",
        "messaging.kafka.offset": 118,
    }


def test_a_failure_is_marked_by_its_code() -> None:
    span = TracerProvider().get_tracer("test").start_span("x")
    telemetry.failed(span, "invalid_json")
    assert dict(span.attributes)["error.type"] == "invalid_json"  # type: ignore[attr-defined]  # of the SDK's span
    assert span.status.status_code is StatusCode.ERROR  # type: ignore[attr-defined]  # of the SDK's span
    assert span.status.description == "invalid_json"  # type: ignore[attr-defined]  # of the SDK's span
    assert span.events == ()  # type: ignore[attr-defined]  # of the SDK's span


def test_an_unknown_exporter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER: expected otlp, zipkin or none"):
        telemetry.configure("safety", "0")


@pytest.mark.parametrize(
    ("exporter", "kind"),
    [("", "[]"), ("none", "[]"), ("otlp", "['OTLPSpanExporter']"), ("zipkin", "['ZipkinExporter']")],
)
def test_nothing_leaves_unless_an_exporter_is_named(monkeypatch: pytest.MonkeyPatch, exporter: str, kind: str) -> None:
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    if exporter:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
    code = (
        "from penstock.runtime import telemetry\n"
        "p = telemetry.configure('safety', 'a1')\n"
        "print([type(s.span_exporter).__name__ for s in p._active_span_processor._span_processors])\n"
        "print(p.resource.attributes['service.name'], p.resource.attributes['service.instance.id'])\n"
    )
    # a process of its own: the provider of a process is set once
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [kind, "penstock-safety a1"]
