"""`penstock.runtime.processor`: one bad record harms no other, and nothing is quoted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.testing import CapturingLogger
from tests.support.processing import PASSED, Bench, Toy, record

from penstock.contracts.errors import InvalidRequest
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import PREPROCESSED, REQUESTS
from penstock.runtime import processor as module
from penstock.runtime import telemetry
from penstock.runtime.stage import Inbound, Outcome

SECRET = "erika@example.org"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    return exporter


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    logger = CapturingLogger()
    monkeypatch.setattr(module, "_log", logger)
    return logger


BUG = ["llm.results/internal_error", "llm.dead-letters/internal_error"]


def test_a_batch_is_handed_over_whole_and_in_order() -> None:
    stage = Toy()
    assert Bench(stage).run(record("a"), record("b")) == [PASSED, PASSED]
    assert stage.batches == [["a", "b"]]


def test_a_large_batch_goes_in_portions_in_order() -> None:
    stage = Toy()
    names = [f"r{number}" for number in range(2 * module.PORTION + 3)]
    assert Bench(stage).run(*map(record, names)) == [PASSED] * len(names)
    assert [len(batch) for batch in stage.batches] == [module.PORTION, module.PORTION, 3]
    assert [name for batch in stage.batches for name in batch] == names


def test_a_bug_on_one_record_is_isolated(log: CapturingLogger) -> None:
    stage = Toy(lambda request_id: KeyError(SECRET) if request_id == "b" else None)
    assert Bench(stage).run(record("a"), record("b"), record("c")) == [PASSED, BUG, PASSED]
    assert stage.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert [call.args[0] for call in log.calls] == ["runtime.batch.isolated", "runtime.record.unexpected_error"]


def test_a_bug_is_told_by_its_place_and_never_by_its_words(log: CapturingLogger, spans: InMemorySpanExporter) -> None:
    (settled,) = Bench(Toy(lambda _: ValueError(f"cannot parse {SECRET}"))).processor.run([record("a")])
    seen = repr(log.calls) + repr([(o.value, o.headers) for o in settled.outputs])
    seen += "".join(span.to_json() for span in spans.get_finished_spans())
    assert SECRET not in seen
    place = log.calls[-1].kwargs
    assert place["error_type"] == "ValueError"
    assert place["frames"][-1].startswith("processing.py:")
    result = RequestFinished.model_validate_json(settled.outputs[0].value or b"")
    assert result.error is not None
    assert "ValueError" in result.error.message


def test_a_typed_error_ends_one_record_without_a_second_attempt() -> None:
    stage = Toy(lambda request_id: InvalidRequest("bad", code="invalid_field") if request_id == "a" else None)
    outcome = Bench(stage).run(record("a"), record("b"))
    assert outcome == [["llm.results/invalid_field", "llm.dead-letters/invalid_field"], PASSED]
    assert stage.batches == [["a", "b"]]


def test_too_few_outcomes_fail_all_rather_than_lose_one() -> None:
    class Forgetful(Toy):
        def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
            return super().process(batch)[1:]

    outcome = Bench(Forgetful()).run(record("a"), record("b"))
    assert outcome == [["llm.results/unexpected_outcome", "llm.dead-letters/unexpected_outcome"]] * 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"value": b"{"}, "invalid_event"),
        ({"value": b'{"context": {}}'}, "invalid_event"),
        ({"value": None}, "invalid_event"),
        ({"value": b"\xff"}, "invalid_event"),
        ({"headers": (("schema", b"penstock.request-preprocessed/3"),)}, "unsupported_schema_version"),
        ({"headers": (("schema", b"penstock.request-screened/1"),)}, "unknown_schema"),
        ({"headers": (("tenant", b"not a tenant"),)}, "invalid_header"),
    ],
)
def test_a_corrupt_event_is_a_dead_letter_and_stops_nobody(changes: dict[str, Any], code: str) -> None:
    stage = Toy()
    outcome = Bench(stage).run(record("a", **changes), record("b"))
    assert outcome == [[f"llm.results/{code}", f"llm.dead-letters/{code}"], PASSED]
    assert stage.batches == [["b"]]


def test_an_event_of_the_next_version_is_read_as_far_as_it_is_known() -> None:
    stage = Toy()
    value = json.loads(record("a").value or b"") | {"added_later": {"text": SECRET}}
    newer = record("a", value=json.dumps(value).encode(), headers=(("schema", b"penstock.request-preprocessed/2"),))
    (settled,) = Bench(stage).processor.run([newer])
    assert (stage.batches, settled.code) == ([["a"]], None)
    # what a service does not know it does not pass on: nobody has looked for personal data in it
    assert SECRET.encode() not in (settled.outputs[0].value or b"")


def test_a_corrupt_event_is_described_and_not_quoted() -> None:
    value = b'{"context": {"request_id": "' + SECRET.encode() + b'"}, "prompt": "' + SECRET.encode() + b'"}'
    (settled,) = Bench(Toy()).processor.run([record("a", value=value)])
    assert SECRET.encode() not in (settled.outputs[0].value or b"")


def test_requests_reach_their_stage_unread() -> None:
    class First(Toy):
        def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
            assert [inbound.event for inbound in batch] == [None]
            return [InvalidRequest("not JSON", code="invalid_json")]

    raw = record("a", topic=f"p.{REQUESTS}", value=b"\xff", headers=(("schema", b"nonsense"),))
    assert Bench(First()).run(raw) == [["llm.results/invalid_json", "llm.dead-letters/invalid_json"]]


def test_spans_are_ended_and_only_failures_marked(spans: InMemorySpanExporter) -> None:
    stage = Toy(lambda request_id: InvalidRequest("bad") if request_id == "a" else None)
    Bench(stage).run(record("a"), record("b"))
    process = [span for span in spans.get_finished_spans() if span.name == f"process {PREPROCESSED}"]
    assert [span.status.status_code for span in process] == [StatusCode.ERROR, StatusCode.UNSET]
    assert [dict(span.attributes or {}).get("error.type") for span in process] == ["invalid_request", None]


def test_every_record_is_timed() -> None:
    bench = Bench(Toy())
    bench.run(record("a"), record("b"))
    count = bench.metrics.registry.get_sample_value("penstock_process_duration_seconds_count", {"stage": "toy"})
    assert count == 2
