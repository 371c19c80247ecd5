"""The span of each answer."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.support.generation import NOW_MS, Bench, Clock, Scripted, event_of, local

from penstock.contracts.errors import (
    PenstockError,
)
from penstock.contracts.events import (
    RequestScreened,
)
from penstock_inference import spans
from penstock_inference.backend import Prompts


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("penstock.inference"))
    return memory


def test_what_is_given_up_at_the_end_has_no_outcome(exporter: InMemorySpanExporter) -> None:
    bench = Bench(Scripted())
    (job,) = bench.begin(event_of())
    bench.generating.step()
    bench.generating.clear()
    assert (len(bench.generating), job.outcomes) == (0, [])
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "abandoned"


def test_the_chat_span_is_a_client_child_with_the_conventions_attributes(exporter: InMemorySpanExporter) -> None:
    clock = Clock()
    parent = spans._tracer.start_span("process llm.screened")
    event = event_of(temperature=0.5, top_p=0.9, max_tokens=4, seed=11, text="sensitive")
    Bench(Scripted(clock, seconds=0.25), clock).run(event, span=parent)
    (span,) = exporter.get_finished_spans()
    assert span.name == "chat tiny"
    assert span.kind is SpanKind.CLIENT
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "penstock",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 4,
        "gen_ai.request.seed": 11,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.response.time_to_first_chunk": pytest.approx(0.25),
    }


def test_the_chat_span_names_the_adapter_that_the_event_asks_for(exporter: InMemorySpanExporter) -> None:
    backend = Scripted()
    event = event_of(max_tokens=2)
    versions = {
        "tokenizer": "t",
        "adapter": "tone@3f2a91c07d15",
        "adapter-digest": "sha256:1",
        "adapter-base": "sha256:2",
    }
    bench = Bench(backend)
    bench.begin(event.having(context=event.context.having(versions=versions)))
    ((request, _),) = backend.running.values()
    assert request.adapter == "tone@3f2a91c07d15"
    assert request.prompts == Prompts("t", None, "sha256:2")
    while len(bench.generating):
        bench.generating.step()
    (span,) = exporter.get_finished_spans()
    told = span.attributes or {}
    assert (told["penstock.adapter"], told["penstock.adapter.digest"]) == ("tone@3f2a91c07d15", "sha256:1")


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (event_of(deadline_ms=NOW_MS + 150), "deadline_exceeded"),
        (event_of(text="x" * 5_000), "context_length_exceeded"),
    ],
)
def test_the_span_of_a_failure_names_its_code(
    exporter: InMemorySpanExporter, event: RequestScreened, code: str
) -> None:
    (job,) = Bench(local(rows=1), Clock(step=0.1)).run(event)
    assert isinstance(job.outcome, PenstockError)
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == code
