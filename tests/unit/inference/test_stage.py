"""RequestScreened -> CompletionGenerated, with deadlines, spans and streamed pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from penstock.contracts.errors import Expired, LimitExceeded, PenstockError, StageError
from penstock.contracts.events import (
    CompletionGenerated,
    Event,
    Findings,
    GenerationParameters,
    PromptPart,
    RequestContext,
    RequestScreened,
    SealedVault,
    Source,
    TokensGenerated,
)
from penstock.runtime.stage import Inbound, Record
from penstock_inference import spans
from penstock_inference.backend import GenerationRequest, Piece
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits
from penstock_inference.stage import InferenceStage

TINY = Path(__file__).parents[2] / "fixtures" / "tiny-lm"
NOW_MS = 1_700_000_000_000
VAULT = SealedVault(key_id="k1", wrapped_key="a", wrap_nonce="b", nonce="c", ciphertext="d")


class Sink:
    """Collects what is streamed."""

    def __init__(self) -> None:
        self.sent: list[tuple[TokensGenerated, Inbound]] = []

    def send(self, tokens: TokensGenerated, inbound: Inbound) -> None:
        self.sent.append((tokens, inbound))

    def of(self, request_id: str) -> list[TokensGenerated]:
        return [tokens for tokens, _ in self.sent if tokens.request_id == request_id]


class Clock:
    """Seconds that pass only when told to; `step` of them at each reading."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Scripted:
    """A backend that says one word a step for each request, for as many steps as `max_tokens`, taking `seconds`."""

    versions: Mapping[str, str] = {"model": "scripted"}

    def __init__(self, clock: Clock, seconds: float = 0.0, fail_at: int | None = None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._fail_at = fail_at
        self.running: dict[int, tuple[GenerationRequest, int]] = {}
        self.cancelled: list[int] = []
        self.seeds: list[int] = []
        self.steps = 0

    def add(self, request: GenerationRequest) -> int:
        self.seeds.append(request.seed)
        self.running[request.key] = (request, 0)
        return 5

    def step(self) -> Sequence[Piece]:
        self.steps += 1
        if self.steps == self._fail_at:
            raise RuntimeError("the session broke")
        self._clock.now += self._seconds
        pieces = []
        for key, (request, count) in list(self.running.items()):
            ends = count + 1 == request.parameters.max_tokens
            # every second token is held back, as a placeholder's beginning is
            text = f"w{count} " if count % 2 else ""
            pieces.append(Piece(key, text, count + 1, "length" if ends else None))
            self.running[key] = (request, count + 1)
            if ends:
                del self.running[key]
        return pieces

    def cancel(self, key: int) -> None:
        self.cancelled.append(key)
        del self.running[key]

    def clear(self) -> None:
        self.running.clear()


def _event(
    request_id: str = "r1", text: str = "the model", deadline_ms: int | None = None, **given: Any
) -> RequestScreened:
    return RequestScreened(
        context=RequestContext(
            request_id=request_id,
            conversation_id="c1",
            submitted_ms=NOW_MS - 50,
            deadline_ms=deadline_ms,
            source=Source(topic="llm.requests", partition=0, offset=1),
        ),
        findings=Findings(input_tokens=7, redactions={"PERSON": 1}),
        prompt=(PromptPart(kind="text", text=text),),
        parameters=GenerationParameters(**{"model": "tiny", "max_tokens": 6, **given}),
        vault=VAULT,
    )


def _inbound(event: Event | None, span: trace.Span = trace.INVALID_SPAN) -> Inbound:
    record = Record("llm.screened", 0, 1, NOW_MS, b"c1", b"{}")
    return Inbound(record=record, now_ms=NOW_MS, event=event, span=span)


def _scripted(
    sink: Sink, clock: Clock, seconds: float = 0.0, fail_at: int | None = None
) -> tuple[InferenceStage, Scripted]:
    backend = Scripted(clock, seconds, fail_at)
    return InferenceStage(backend, sink, release="1.2.3", monotonic=clock), backend


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("penstock.inference"))
    return memory


def test_a_real_answer_carries_everything_on() -> None:
    stage = InferenceStage(LocalBackend.load(TINY, Limits(rows=2)), Sink(), release="1.2.3")
    event = _event()
    (outcome,) = stage.process([_inbound(event)])
    assert isinstance(outcome, CompletionGenerated)
    assert (outcome.context, outcome.findings, outcome.vault) == (event.context, event.findings, VAULT)
    assert outcome.parameters == event.parameters
    completion = outcome.completion
    assert completion.text
    assert completion.finish_reason == "length"
    assert completion.usage.completion_tokens == 6
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 6
    assert completion.time_to_first_token_ms is not None
    assert stage.versions["inference"] == "1.2.3"
    assert stage.versions["model"].startswith("sha256:")


def test_outcomes_are_in_the_order_of_the_batch_whoever_ends_first() -> None:
    stage, _ = _scripted(Sink(), Clock())
    outcomes = stage.process([_inbound(_event(f"r{count}", max_tokens=count)) for count in (9, 2, 5)])
    counts = [each.completion.usage.completion_tokens for each in outcomes if isinstance(each, CompletionGenerated)]
    assert counts == [9, 2, 5]


def test_one_request_that_cannot_run_does_not_touch_the_others() -> None:
    stage = InferenceStage(LocalBackend.load(TINY, Limits(rows=2, context=64)), Sink(), release="1")
    outcomes = stage.process([_inbound(_event("a")), _inbound(_event("b", text="x" * 500)), _inbound(None)])
    assert isinstance(outcomes[0], CompletionGenerated)
    assert isinstance(outcomes[1], LimitExceeded)
    assert isinstance(outcomes[2], StageError)


def test_streamed_pieces_are_numbered_and_join_to_the_answer() -> None:
    sink = Sink()
    stage = InferenceStage(LocalBackend.load(TINY, Limits(rows=2)), sink, release="1")
    batch = [_inbound(_event("a", stream=True, max_tokens=30)), _inbound(_event("b", text="quiet"))]
    outcome = stage.process(batch)[0]
    assert isinstance(outcome, CompletionGenerated)
    pieces = sink.of("a")
    assert len(pieces) > 5
    assert [piece.sequence for piece in pieces] == list(range(len(pieces)))
    assert "".join(piece.text for piece in pieces) == outcome.completion.text
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert all(inbound is batch[0] for _, inbound in sink.sent)


def test_steps_without_text_send_nothing_but_the_end_is_always_sent() -> None:
    sink = Sink()
    stage, _ = _scripted(sink, Clock())
    stage.process([_inbound(_event("a", stream=True, max_tokens=5))])
    assert [(piece.text, piece.finish_reason) for piece in sink.of("a")] == [
        ("w1 ", None),
        ("w3 ", None),
        ("", "length"),
    ]


def test_time_to_first_token_and_deadline_use_the_monotonic_clock() -> None:
    clock, sink = Clock(), Sink()
    stage, backend = _scripted(sink, clock, seconds=0.1)
    outcomes = stage.process(
        [
            _inbound(_event("late", deadline_ms=NOW_MS + 250, max_tokens=6, stream=True)),
            _inbound(_event("intime", deadline_ms=NOW_MS + 450, max_tokens=4)),
            _inbound(_event("free", max_tokens=6)),
        ]
    )
    late, in_time, free = outcomes
    assert isinstance(late, Expired)
    assert (late.code, late.field, late.limit) == ("deadline_exceeded", "header deadline", NOW_MS + 250)
    assert backend.cancelled == [0]
    assert sink.of("late")[-1].finish_reason == "cancelled"
    assert isinstance(in_time, CompletionGenerated)
    assert isinstance(free, CompletionGenerated)
    assert in_time.completion.time_to_first_token_ms == pytest.approx(100.0)


def test_a_deadline_already_past_generates_nothing() -> None:
    stage, backend = _scripted(Sink(), Clock())
    (outcome,) = stage.process([_inbound(_event(deadline_ms=NOW_MS))])
    assert isinstance(outcome, Expired)
    assert backend.steps == 0


def test_the_seed_is_the_requests_or_follows_from_its_id() -> None:
    stage, backend = _scripted(Sink(), Clock())
    stage.process([_inbound(_event("a", seed=5)), _inbound(_event("a")), _inbound(_event("a")), _inbound(_event("b"))])
    assert backend.seeds[0] == 5
    assert backend.seeds[1] == backend.seeds[2] != backend.seeds[3]


def test_after_a_failure_the_stage_is_empty_and_works_again(exporter: InMemorySpanExporter) -> None:
    stage, backend = _scripted(Sink(), Clock(), fail_at=2)
    with pytest.raises(RuntimeError, match="the session broke"):
        stage.process([_inbound(_event("a")), _inbound(_event("b"))])
    assert backend.running == {}
    assert [span.status.status_code for span in exporter.get_finished_spans()] == [StatusCode.ERROR] * 2
    (outcome,) = stage.process([_inbound(_event("a"))])
    assert isinstance(outcome, CompletionGenerated)


def test_an_idle_backend_with_requests_in_flight_is_an_error() -> None:
    clock = Clock()
    stage, backend = _scripted(Sink(), clock)
    backend.step = lambda: ()  # type: ignore[method-assign]  # the fault under test
    with pytest.raises(StageError, match="idle"):
        stage.process([_inbound(_event())])


def test_the_chat_span_is_a_client_child_with_the_conventions_attributes(exporter: InMemorySpanExporter) -> None:
    stage, _ = _scripted(Sink(), Clock(), seconds=0.25)
    parent = spans._tracer.start_span("process llm.screened")
    stage.process([_inbound(_event(temperature=0.5, top_p=0.9, max_tokens=4, seed=11, text="sensitive"), parent)])
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


@pytest.mark.parametrize(
    ("event", "code"),
    [(_event(deadline_ms=NOW_MS + 150), "deadline_exceeded"), (_event(text="x" * 5_000), "context_length_exceeded")],
)
def test_the_span_of_a_failure_names_its_code(
    exporter: InMemorySpanExporter, event: RequestScreened, code: str
) -> None:
    clock = Clock(step=0.1)
    stage = InferenceStage(LocalBackend.load(TINY, Limits(rows=1)), Sink(), release="1", monotonic=clock)
    (outcome,) = stage.process([_inbound(event)])
    assert isinstance(outcome, PenstockError)
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == code
