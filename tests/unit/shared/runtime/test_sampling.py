"""`penstock.runtime.sampling`: a trace that is not sampled costs nothing and goes on; what fails in it is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from penstock.contracts.errors import InvalidRequest
from penstock.contracts.events import GenerationParameters, RequestAnonymized, RequestContext, Source
from penstock.contracts.terminal import finish
from penstock.runtime import sampling, telemetry
from penstock.runtime.kafka import Names
from penstock.runtime.outcomes import Settled, Settler
from penstock.runtime.sampling import KEPT, Keeping, Unrecorded
from penstock.runtime.stage import Inbound, Record

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00".encode()
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()
CONTEXT = RequestContext(
    request_id="r", conversation_id="c", submitted_ms=1, source=Source(topic="t", partition=0, offset=0)
)
EVENT = RequestAnonymized(context=CONTEXT, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.sampler = Keeping(provider.sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def settle(outcome: Any, traceparent: bytes) -> Settled:
    record = Record("p.llm.anonymized", 0, 3, 1, b"c", b"{}", (("traceparent", traceparent), ("tracestate", b"v=1")))
    span = telemetry.start_process(record, "llm.anonymized", "p.penstock-toy", 1_000_000)
    return Settler("toy", {}, Names("p.")).settle(Inbound(record, 1, EVENT, span), outcome, finished_ms=2)


def parent_of(settled: Settled) -> str:
    return dict(settled.outputs[0].headers)["traceparent"].decode()  # type: ignore[union-attr]  # always written


def test_an_unsampled_trace_goes_on_as_it_came_and_makes_no_span(spans: InMemorySpanExporter) -> None:
    settled = settle(EVENT, UNSAMPLED)
    assert spans.get_finished_spans() == ()
    assert settled.outputs[0].headers.count(("traceparent", UNSAMPLED)) == 1
    assert settled.outputs[0].headers.count(("tracestate", b"v=1")) == 1
    assert settled.inbound.trace_id == TRACE


def test_a_sampled_trace_is_recorded_and_followed(spans: InMemorySpanExporter) -> None:
    settled = settle(EVENT, SAMPLED)
    send, process = spans.get_finished_spans()
    assert (send.name, process.name) == ("send llm.anonymized", "process llm.anonymized")
    assert parent_of(settled) == f"00-{TRACE}-{trace.format_span_id(send.context.span_id)}-01"


@pytest.mark.parametrize("status", ["failed", "blocked"])
def test_what_fails_or_is_blocked_is_recorded_all_the_same(spans: InMemorySpanExporter, status: str) -> None:
    blocked = finish(EVENT, status="blocked", now_ms=2)
    settled = settle(InvalidRequest("no", code="bad") if status == "failed" else blocked, UNSAMPLED)
    process = next(span for span in spans.get_finished_spans() if span.name == "process llm.anonymized")
    assert process.attributes is not None
    assert process.attributes[KEPT] is True
    assert process.attributes.get("error.type") == ("bad" if status == "failed" else None)
    assert trace.format_trace_id(process.context.trace_id) == TRACE == settled.inbound.trace_id
    assert process.parent is not None
    assert trace.format_span_id(process.parent.span_id) == PARENT


def test_a_completed_result_of_an_unsampled_trace_makes_no_span(spans: InMemorySpanExporter) -> None:
    settle(finish(EVENT, status="completed", now_ms=2), UNSAMPLED)
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize(
    "value", [b"", b"nonsense", UNSAMPLED[:-1], UNSAMPLED.upper(), f"00-{'0' * 32}-{PARENT}-00".encode(), None]
)
def test_a_context_of_another_form_is_not_passed_on(value: bytes | None) -> None:
    assert sampling.passed({"traceparent": value}) is None


def test_a_state_that_is_too_long_or_no_text_is_dropped() -> None:
    for state in (b"v=" + b"1" * 1024, b"v=\xff"):
        passed = sampling.passed({"traceparent": SAMPLED, "tracestate": state})
        assert passed is not None
        assert passed.headers() == [("traceparent", SAMPLED)]


def test_the_source_decides_by_its_sampler() -> None:
    assert sampling.begun(ALWAYS_ON).sampled
    begun = sampling.begun(ALWAYS_OFF)
    assert not begun.sampled
    assert isinstance(begun, Unrecorded)
    assert begun.get_span_context().is_valid
    assert not begun.is_recording()
