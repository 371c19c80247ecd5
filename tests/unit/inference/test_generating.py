"""The answers under way, one step at a time: deadlines, spans, streamed pieces, faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.support.generation import NOW_MS, VAULT, Clock, Scripted, Sink, completed, event_of, job_of, local
from tests.support.jobs import MemoryJob

from penstock.contracts.errors import (
    BackendUnavailable,
    Expired,
    InvalidRequest,
    LimitExceeded,
    PenstockError,
    StageError,
)
from penstock.contracts.events import (
    Alternative,
    Event,
    OutputFormat,
    RequestScreened,
    TokensGenerated,
)
from penstock_inference import spans
from penstock_inference.backend import Backend, Piece, Prompts
from penstock_inference.generating import Generating


class Bench:
    """A backend's generations, stepped by the test."""

    def __init__(self, backend: Backend, clock: Clock | None = None, sink: Sink | None = None) -> None:
        self.sink = sink or Sink()
        self.clock = clock or Clock()
        self.generating = Generating(backend, self.sink, self.clock)

    def begin(self, *events: Event | None, span: trace.Span = trace.INVALID_SPAN) -> list[MemoryJob]:
        jobs = [job_of(event, span) for event in events]
        for job in jobs:
            self.generating.begin(job, self.clock())
        return jobs

    def run(self, *events: Event | None, span: trace.Span = trace.INVALID_SPAN) -> list[MemoryJob]:
        jobs = self.begin(*events, span=span)
        for _ in range(10_000):
            if not len(self.generating):
                return jobs
            self.generating.step()
        raise AssertionError("the generations do not end")


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("penstock.inference"))
    return memory


def test_a_real_answer_carries_everything_on() -> None:
    event = event_of()
    (job,) = Bench(local()).run(event)
    outcome = completed(job)
    assert (outcome.context, outcome.findings, outcome.vault) == (event.context, event.findings, VAULT)
    assert outcome.parameters == event.parameters
    completion = outcome.completion
    assert completion.text
    assert completion.finish_reason == "length"
    assert completion.usage.completion_tokens == 6
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 6
    assert completion.time_to_first_token_ms is not None
    assert job.firsts == 1


def test_each_is_finished_in_the_step_that_completes_it() -> None:
    bench = Bench(Scripted())
    long, short = bench.begin(event_of("a", max_tokens=9), event_of("b", max_tokens=2))
    bench.generating.step()
    assert (long.firsts, short.firsts) == (1, 1)
    bench.generating.step()
    assert completed(short).completion.usage.completion_tokens == 2
    assert long.outcomes == []


def test_a_greedy_answer_is_the_same_whoever_joins_or_leaves_beside_it() -> None:
    (alone,) = Bench(local()).run(event_of(max_tokens=40))
    bench = Bench(local(rows=3))
    (job,) = bench.begin(event_of(max_tokens=40))
    for number in range(5):
        (other,) = bench.begin(event_of(f"other-{number}", text="river bank " * (number + 1), max_tokens=30))
        for _ in range(3):
            bench.generating.step()
        bench.generating.cancel(other)
    while len(bench.generating):
        bench.generating.step()
    assert completed(job).completion.text == completed(alone).completion.text


def test_one_request_that_cannot_run_does_not_touch_the_others() -> None:
    jobs = Bench(local(context=64)).run(event_of("a"), event_of("b", text="x" * 500), None)
    assert completed(jobs[0])
    assert isinstance(jobs[1].outcome, LimitExceeded)
    assert isinstance(jobs[2].outcome, StageError)


def test_streamed_pieces_are_numbered_and_join_to_the_answer() -> None:
    bench = Bench(local())
    streamed, _ = bench.run(event_of("a", stream=True, max_tokens=30), event_of("b", text="quiet"))
    pieces = bench.sink.of("a")
    assert len(pieces) > 5
    assert [piece.sequence for piece in pieces] == list(range(len(pieces)))
    assert "".join(piece.text for piece in pieces) == completed(streamed).completion.text
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert all(inbound is streamed.inbound for _, inbound in bench.sink.sent)


def test_steps_without_text_send_nothing_but_the_end_is_always_sent() -> None:
    bench = Bench(Scripted())
    bench.run(event_of("a", stream=True, max_tokens=5))
    said = [(piece.text, piece.finish_reason) for piece in bench.sink.of("a")]
    assert said == [("w1 ", None), ("w3 ", None), ("", "length")]


def test_a_stream_that_cannot_be_sent_does_not_end_the_answer() -> None:
    jobs = Bench(Scripted(), sink=Sink(RuntimeError("no broker"))).run(event_of("a", stream=True))
    assert completed(jobs[0]).completion.text == "w1 w3 w5 "


def test_a_deadline_ends_a_generation_in_the_middle() -> None:
    clock = Clock()
    backend = Scripted(clock, seconds=0.1)
    bench = Bench(backend, clock)
    late, in_time, free = bench.run(
        event_of("late", deadline_ms=NOW_MS + 250, max_tokens=6, stream=True),
        event_of("intime", deadline_ms=NOW_MS + 450, max_tokens=4),
        event_of("free", max_tokens=6),
    )
    error = late.outcome
    assert isinstance(error, Expired)
    assert (error.code, error.field, error.limit) == ("deadline_exceeded", "header deadline", NOW_MS + 250)
    assert "after 3 generated tokens" in error.message
    assert backend.widths == [3, 3, 3, 2, 1, 1]
    assert bench.sink.of("late")[-1].finish_reason == "cancelled"
    assert completed(in_time).completion.time_to_first_token_ms == pytest.approx(100.0)
    assert completed(free)


def test_a_deadline_already_past_generates_nothing() -> None:
    backend = Scripted()
    (job,) = Bench(backend).run(event_of(deadline_ms=NOW_MS))
    assert isinstance(job.outcome, Expired)
    assert backend.widths == []


def test_the_seed_is_the_requests_or_follows_from_its_id() -> None:
    backend = Scripted()
    Bench(backend).run(event_of("a", seed=5), event_of("a"), event_of("a"), event_of("b"))
    assert backend.seeds[0] == 5
    assert backend.seeds[1] == backend.seeds[2] != backend.seeds[3]


def test_a_cancelled_row_is_free_in_the_next_step() -> None:
    bench = Bench(local(rows=1))
    long, waiting = bench.begin(event_of("long", max_tokens=100), event_of("waiting", max_tokens=5))
    for _ in range(4):
        bench.generating.step()
    assert (long.firsts, waiting.firsts) == (1, 0)
    bench.generating.cancel(long)
    assert len(bench.generating) == 1
    bench.generating.step()
    assert waiting.firsts == 1
    while len(bench.generating):
        bench.generating.step()
    assert completed(waiting)
    assert long.outcomes == []


def test_a_request_at_fault_fails_alone_and_the_others_do_not_begin_anew() -> None:
    fault = RuntimeError()
    fault.__cause__ = MemoryError("prompt text")
    backend = Scripted(faults={"bad": fault})
    bad, good = Bench(backend).run(event_of("a", text="bad"), event_of("b"))
    assert isinstance(bad.outcome, StageError)
    assert "MemoryError" in bad.outcome.message
    assert "prompt text" not in bad.outcome.message
    assert completed(good)
    assert backend.widths == [2, 1, 1, 1, 1, 1, 1]


def test_a_real_prefill_that_fails_leaves_the_other_rows_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    (alone,) = Bench(local()).run(event_of("b", max_tokens=20))
    backend = local()
    bench = Bench(backend)
    (job,) = bench.begin(event_of("b", max_tokens=20))
    bench.generating.step()
    runner = backend._engine._runner
    prefill = runner.prefill

    def broken(row: int, ids: Sequence[int]) -> Any:
        prefill(row, ids)
        raise RuntimeError("the session broke")

    monkeypatch.setattr(runner, "prefill", broken)
    (bad,) = bench.begin(event_of("bad"))
    bench.generating.step()
    assert isinstance(bad.outcome, StageError)
    monkeypatch.setattr(runner, "prefill", prefill)
    (next_one,) = bench.run(event_of("next"))
    assert completed(job).completion.text == completed(alone).completion.text
    assert completed(next_one)


def test_after_a_step_that_nobody_owns_up_to_each_is_tried_alone() -> None:
    backend = Scripted(faults={"bad": RuntimeError("the session broke")})
    bench = Bench(backend)
    first, bad, last = bench.begin(event_of("a", stream=True), event_of("b", text="bad"), event_of("c"))
    bench.generating.step()
    assert bench.generating.isolating
    while len(bench.generating):
        bench.generating.step()
    assert not bench.generating.isolating
    assert isinstance(bad.outcome, StageError)
    assert completed(first).completion.text == completed(last).completion.text == "w1 w3 w5 "
    assert max(backend.widths[1:]) == 1
    assert [piece.sequence for piece in bench.sink.of("a")] == [0, 1, 2]
    (after,) = bench.run(event_of("d"))
    assert completed(after)


def test_a_backend_that_does_not_answer_ends_all_with_its_error() -> None:
    backend = Scripted(faults={"b": BackendUnavailable("no server")})
    jobs = Bench(backend).run(event_of("a"), event_of("b", text="b"))
    assert all(isinstance(job.outcome, BackendUnavailable) for job in jobs)
    assert backend.running == {}


def test_an_idle_backend_with_requests_in_flight_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Scripted()
    monkeypatch.setattr(backend, "step", lambda: ())
    (job,) = Bench(backend).run(event_of())
    assert isinstance(job.outcome, StageError)
    assert job.outcome.code == "backend_idle"


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


def test_further_answers_and_likelihoods_go_on_with_the_first() -> None:
    (job,) = Bench(local()).run(event_of(n=3, temperature=1.0, seed=5, logprobs=1, max_tokens=4))
    event = completed(job)
    assert event.others is not None
    assert len(event.others) == 2
    assert event.completion.usage.completion_tokens <= 12
    assert event.completion.logprobs is not None
    assert all(other.logprobs is not None for other in event.others)
    (plain,) = Bench(local()).run(event_of(temperature=1.0, seed=5, max_tokens=4))
    assert completed(plain).completion.text == event.completion.text
    assert (completed(plain).others, completed(plain).completion.logprobs) == (None, None)


def test_a_schema_that_cannot_be_followed_ends_that_request_alone() -> None:
    bad = OutputFormat(type="json_schema", json_schema='{"not": {}}')
    refused, good = Bench(local()).run(event_of("r1", output=bad), event_of("r2"))
    assert isinstance(refused.outcome, InvalidRequest)
    assert refused.outcome.code == "unsupported_json_schema"
    assert completed(good).completion.text


def test_an_answer_without_a_token_ends_and_one_whose_prompt_is_being_read_goes_on() -> None:
    class Silent(Scripted):
        def step(self) -> Sequence[Piece]:
            (key,) = self.running
            self.widths.append(1)
            return [Piece(key, "", 0, "stop" if len(self.widths) == 3 else None)]

    backend = Silent()
    (job,) = Bench(backend).run(event_of())
    assert (completed(job).completion.text, len(backend.widths)) == ("", 3)


def _streams(bench: Bench, answers: int) -> list[list[TokensGenerated]]:
    pieces = bench.sink.of("r1")
    streams = [[piece for piece in pieces if piece.index == index] for index in range(answers)]
    for stream in streams:
        assert [piece.sequence for piece in stream] == list(range(len(stream)))
        assert [piece.opening is not None for piece in stream] == [True, *[False] * (len(stream) - 1)]
        assert [piece.finish_reason is not None for piece in stream] == [*[False] * (len(stream) - 1), True]
    return streams


def test_several_answers_are_a_stream_each_as_they_come() -> None:
    bench = Bench(local())
    (job,) = bench.run(event_of(stream=True, n=3, temperature=1.0, max_tokens=12))
    outcome = completed(job)
    texts = [outcome.completion.text, *(other.text for other in outcome.others or ())]
    streams = _streams(bench, 3)
    assert ["".join(piece.text for piece in stream) for stream in streams] == texts
    assert len(set(texts)) > 1
    assert all(len(stream) > 2 for stream in streams), "further answers came whole"


class AtTheEnd(Scripted):
    """Tells of further answers with the last piece alone."""

    def step(self) -> list[Piece]:
        others = tuple(Alternative(text=f"answer {number}", finish_reason="stop") for number in (1, 2))
        return [replace(piece, others=others) if piece.finish_reason else piece for piece in super().step()]


def test_answers_that_are_told_of_at_the_end_are_streamed_whole() -> None:
    bench = Bench(AtTheEnd())
    bench.run(event_of(stream=True, n=3, max_tokens=4))
    first, *others = _streams(bench, 3)
    assert "".join(piece.text for piece in first) == "w1 w3 "
    assert [[piece.text for piece in stream] for stream in others] == [["answer 1"], ["answer 2"]]


def test_all_streams_of_a_request_that_is_too_late_are_cancelled() -> None:
    clock = Clock()
    bench = Bench(Scripted(clock, seconds=1.0), clock)
    bench.run(event_of(stream=True, n=2, max_tokens=50, deadline_ms=NOW_MS + 4_500))
    assert [stream[-1].finish_reason for stream in _streams(bench, 2)] == ["cancelled", "cancelled"]
