"""`penstock.runtime.processor`: one bad record harms no other, what may succeed is retried, nothing is quoted."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.testing import CapturingLogger

from penstock.contracts import headers as names_of
from penstock.contracts.control import Cancel
from penstock.contracts.delays import Delayed
from penstock.contracts.errors import BackendUnavailable, InvalidRequest, RateLimited, RetriableError
from penstock.contracts.events import (
    GenerationParameters,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    Source,
)
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import PREPROCESSED, REQUESTS
from penstock.runtime import processor as module
from penstock.runtime import telemetry
from penstock.runtime.cancellations import Cancellations
from penstock.runtime.claims import Claims
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.processor import Interrupted, Processor
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Inbound, Outcome, Record

NOW_MS = 1_700_000_000_000
SECRET = "erika@example.org"
Act = Callable[[str], Exception | None]


class Toy:
    """Passes each event on, unless `act` says otherwise: an exception that is raised for the whole batch."""

    name = "toy"

    def __init__(self, act: Act = lambda _: None) -> None:
        self.versions = {"toy": "1"}
        self.batches: list[list[str]] = []
        self._act = act

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        events = [inbound.expect(RequestPreprocessed) for inbound in batch]
        self.batches.append([event.context.request_id for event in events])
        outcomes: list[Outcome] = []
        for event in events:
            error = self._act(event.context.request_id)
            if isinstance(error, InvalidRequest | RetriableError):
                outcomes.append(error)
                continue
            if error is not None:
                raise error
            outcomes.append(RequestAnonymized(context=event.context, prompt=(), parameters=event.parameters))
        return outcomes


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


class Bench:
    def __init__(self, stage: Any, cancellations: Cancellations | None = None, **settings: Any) -> None:
        self.stopping = threading.Event()
        self.metrics = StageMetrics("toy")
        settings = {"retry_backoff_ms": 1, "retry_backoff_max_ms": 1} | settings
        self.processor = Processor(
            stage,
            ServiceSettings(**settings),
            names=Names("p."),
            metrics=self.metrics,
            stopping=self.stopping,
            cancellations=cancellations,
            clock_ns=lambda: NOW_MS * 1_000_000,
        )

    def run(self, *records: Record) -> list[list[str]]:
        """For each record the topics written, with the error's code after a slash."""
        return [
            [f"{output.topic}/{one.code}" if one.code else output.topic for output in one.outputs]
            for one in self.processor.run(records)
        ]


def record(request_id: str, *, deadline_ms: int | None = None, **changes: Any) -> Record:
    context = RequestContext(
        request_id=request_id,
        conversation_id=request_id,
        deadline_ms=deadline_ms,
        submitted_ms=NOW_MS - 10,
        source=Source(topic="p.llm.requests", partition=0, offset=0),
    )
    event = RequestPreprocessed(context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))
    fields: dict[str, Any] = {
        "topic": f"p.{PREPROCESSED}",
        "partition": 0,
        "offset": 1,
        "timestamp_ms": NOW_MS - 5,
        "key": request_id.encode(),
        "value": event.encode(),
        "headers": tuple(names_of.of_context(context, event.schema_ref())),
    }
    return Record(**fields | changes)


PASSED = ["llm.anonymized"]
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
    assert place["frames"][-1].startswith("test_processor.py:")
    result = RequestFinished.model_validate_json(settled.outputs[0].value or b"")
    assert result.error is not None
    assert "ValueError" in result.error.message


def test_a_typed_error_ends_one_record_without_a_second_attempt() -> None:
    stage = Toy(lambda request_id: InvalidRequest("bad", code="invalid_field") if request_id == "a" else None)
    outcome = Bench(stage).run(record("a"), record("b"))
    assert outcome == [["llm.results/invalid_field", "llm.dead-letters/invalid_field"], PASSED]
    assert stage.batches == [["a", "b"]]


def test_only_what_may_yet_succeed_is_tried_again() -> None:
    tries: Counter[str] = Counter()

    def act(request_id: str) -> Exception | None:
        tries[request_id] += 1
        return BackendUnavailable("down") if request_id == "a" and tries["a"] < 3 else None

    stage = Toy(act)
    bench = Bench(stage)
    assert bench.run(record("a"), record("b")) == [PASSED, PASSED]
    assert stage.batches == [["a", "b"], ["a"], ["a"]]
    labels = {"stage": "toy", "how": "in_place", "code": "backend_unavailable"}
    assert bench.metrics.registry.get_sample_value("penstock_retries_total", labels) == 2


def test_attempts_are_bounded_and_counted_in_the_dead_letter() -> None:
    stage = Toy(lambda _: BackendUnavailable("down"))
    (settled,) = Bench(stage, retry_attempts=3).processor.run([record("a")])
    assert len(stage.batches) == 3
    letter = dict(settled.outputs[1].headers)["dead-letter"]
    assert letter is not None
    assert b'"attempts":3' in letter
    assert settled.code == "backend_unavailable"


def test_a_long_wait_leaves_the_batch_and_the_others_go_on() -> None:
    class Safety(Toy):
        name = "safety"

    stage = Safety(lambda request_id: RateLimited("slow", retry_after_s=30) if request_id == "a" else None)
    bench = Bench(stage)
    delayed, passed = bench.processor.run([record("a"), record("b")])
    assert [output.topic for output in passed.outputs] == PASSED
    (waiting,) = delayed.outputs
    assert waiting.topic == "llm.retry.safety"
    known = Delayed.of(waiting.headers)
    assert known is not None
    assert known.attempts == 1
    # the policy of 429 draws up to a second on top of what was asked for
    assert NOW_MS + 30_000 <= known.not_before_ms <= NOW_MS + 31_000
    labels = {"stage": "safety", "how": "delayed", "code": "rate_limited"}
    assert bench.metrics.registry.get_sample_value("penstock_retries_total", labels) == 1


def test_attempts_before_a_delay_are_counted() -> None:
    class Safety(Toy):
        name = "safety"

    stage = Safety(lambda _: BackendUnavailable("down"))
    first = record("a")
    known = Delayed(3, NOW_MS, first.source, "backend_unavailable")
    again = record("a", offset=9, headers=(*first.headers, *known.headers()))
    bench = Bench(stage, retry_attempts=5)
    (settled,) = bench.processor.run([again])
    assert len(stage.batches) == 2
    assert b'"attempts":5' in (dict(settled.outputs[1].headers)["dead-letter"] or b"")
    labels = {"stage": "safety", "code": "backend_unavailable"}
    assert bench.metrics.registry.get_sample_value("penstock_retries_exhausted_total", labels) == 1


def test_a_claimed_record_that_waited_is_read_and_waits_again_as_a_claim(tmp_path: Path) -> None:
    class Safety(Toy):
        name = "safety"

    claims = Claims.open(str(tmp_path), threshold=1)
    whole = record("a")
    kept = claims.check_in(PREPROCESSED, whole.value or b"", NOW_MS)
    headers = (*whole.headers, *kept.headers)
    known = Delayed(1, NOW_MS, whole.source, "rate_limited")
    again = record("a", offset=9, value=kept.value, headers=(*headers, *known.headers()))
    stage = Safety(lambda _: RateLimited("slow", retry_after_s=30))
    (settled,) = Bench(stage, claim_store=str(tmp_path)).processor.run([again])
    assert stage.batches == [["a"]], "the stage is given the event"
    (waiting,) = settled.outputs
    assert (waiting.topic, waiting.value) == ("llm.retry.safety", kept.value)
    assert tuple(waiting.headers[:-4]) == headers
    found = Delayed.of(waiting.headers)
    assert found is not None
    assert (found.attempts, found.retry_of) == (2, whole.source)
    assert settled.inbound.record.in_topic is settled.inbound.event is None, "the value is not held"


def test_no_attempt_is_planned_beyond_the_deadline_and_the_error_is_named() -> None:
    stage = Toy(lambda _: RateLimited("slow", retry_after_s=30))
    (settled,) = Bench(stage).processor.run([record("a", deadline_ms=NOW_MS + 29_000)])
    assert (settled.status, settled.code) == ("expired", "deadline_exceeded")
    result = RequestFinished.model_validate_json(settled.outputs[0].value or b"")
    assert result.error is not None
    assert "rate_limited" in result.error.message
    assert [output.topic for output in settled.outputs] == ["llm.results"]


def test_a_retriable_error_raised_for_the_batch_is_one_for_each() -> None:
    class Down(Toy):
        def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
            if not self.batches:
                self.batches.append([])
                raise BackendUnavailable("down")
            return super().process(batch)

    stage = Down()
    assert Bench(stage).run(record("a"), record("b")) == [PASSED, PASSED]
    assert stage.batches == [[], ["a", "b"]]


def test_stopping_gives_the_batch_up_in_the_middle_of_a_wait() -> None:
    bench = Bench(Toy(lambda _: BackendUnavailable("down")), retry_backoff_ms=60_000, retry_backoff_max_ms=60_000)
    bench.stopping.set()
    with pytest.raises(Interrupted):
        bench.run(record("a"))


def test_too_few_outcomes_fail_all_rather_than_lose_one() -> None:
    class Forgetful(Toy):
        def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
            return super().process(batch)[1:]

    outcome = Bench(Forgetful()).run(record("a"), record("b"))
    assert outcome == [["llm.results/unexpected_outcome", "llm.dead-letters/unexpected_outcome"]] * 2


def test_what_is_past_its_deadline_never_reaches_the_stage() -> None:
    stage = Toy()
    outcome = Bench(stage).run(record("a", deadline_ms=NOW_MS - 1), record("b", deadline_ms=NOW_MS))
    assert outcome == [["llm.results/deadline_exceeded"], PASSED]
    assert stage.batches == [["b"]]


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


def cancelling(*commands: Cancel) -> Cancellations:
    cancellations = Cancellations(max_entries=10, max_age_ms=60_000, clock_ms=lambda: NOW_MS)
    for command in commands:
        cancellations.put(command)
    return cancellations


def test_a_cancelled_request_ends_before_the_stage_and_has_no_dead_letter() -> None:
    stage = Toy()
    bench = Bench(stage, cancellations=cancelling(Cancel(request_id="b", reason="enough", issued_ms=NOW_MS)))
    settled = bench.processor.run([record("a"), record("b", deadline_ms=NOW_MS - 1), record("c")])
    assert stage.batches == [["a", "c"]]
    (output,) = settled[1].outputs
    assert (output.topic, settled[1].status, settled[1].code) == ("llm.results", "cancelled", "cancelled")
    assert output.value is not None
    error = RequestFinished.model_validate_json(output.value).error
    assert error is not None
    assert (error.message, error.stage) == ("cancelled by its request id: enough", "toy")


def test_a_request_cancelled_while_the_stage_has_it_goes_no_further() -> None:
    cancellations = cancelling()

    def cancel(request_id: str) -> None:
        cancellations.put(Cancel(request_id="b", issued_ms=NOW_MS))

    bench = Bench(Toy(cancel), cancellations=cancellations)
    assert bench.run(record("a"), record("b")) == [PASSED, ["llm.results/cancelled"]]


def test_a_raw_request_is_cancelled_once_it_is_known_whose_it_is() -> None:
    context = RequestContext(
        request_id="r",
        conversation_id="c",
        tenant="acme",
        submitted_ms=NOW_MS,
        source=Source(topic="t", partition=0, offset=0),
    )

    class Reading:
        name = "toy"
        versions: ClassVar[dict[str, str]] = {}

        def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
            parameters = GenerationParameters(model="m", max_tokens=1)
            return [RequestPreprocessed(context=context, prompt=(), parameters=parameters) for _ in batch]

    bench = Bench(Reading(), cancellations=cancelling(Cancel(tenant="acme", issued_ms=NOW_MS)))
    assert bench.run(record("r", topic=f"p.{REQUESTS}", headers=())) == [["llm.results/cancelled"]]
