"""`penstock.runtime.outcomes`: each record becomes one event or one terminal result, whatever the stage returned."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.contracts import delays, topics
from penstock.contracts.base import Message
from penstock.contracts.errors import DuplicateRequest, Expired, InvalidRequest, Overloaded, PenstockError, RateLimited
from penstock.contracts.events import (
    Findings,
    GenerationParameters,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    Source,
    TokensGenerated,
)
from penstock.contracts.ingress import request_id_of
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.terminal import finish
from penstock.runtime import telemetry
from penstock.runtime.kafka import RECORD_OVERHEAD_BYTES, Names
from penstock.runtime.outcomes import Output, Settled, Settler
from penstock.runtime.stage import Inbound, Record

LIMIT = {topic.name: topic.max_message_bytes for topic in topics.load_topics()}
SOURCE = Source(topic="llm.requests", partition=0, offset=7)
CONTEXT = RequestContext(
    request_id="r1",
    conversation_id="c1",
    tenant="acme",
    deadline_ms=9_999,
    submitted_ms=1_000,
    source=SOURCE,
    versions={"preprocess": "1"},
)
PARAMETERS = GenerationParameters(model="m", max_tokens=1)
EVENT = RequestPreprocessed(
    context=CONTEXT, findings=Findings(redactions={"EMAIL_ADDRESS": 1}), prompt=(), parameters=PARAMETERS
)
RECORD = Record(
    topic="llm.preprocessed",
    partition=0,
    offset=3,
    timestamp_ms=1_900,
    key=b"c1",
    value=b"the original bytes \xff",
    headers=(("tenant", b"acme"), ("custom", b"kept"), ("dead-letter", b"an earlier one")),
)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    return exporter


def settle(outcome: Any, *, raw: bool = False, record: Record = RECORD, event: Any = EVENT) -> Settled:
    span = telemetry.start_process(record, "llm.preprocessed", "toy", 1)
    inbound = Inbound(record=record, now_ms=2_000, event=None if raw else event, span=span)
    return Settler("toy", {"toy": "0.1"}, Names("p.")).settle(inbound, outcome, finished_ms=2_050, attempts=2)


def anonymized(**changes: Any) -> RequestAnonymized:
    return RequestAnonymized(context=CONTEXT, prompt=(), parameters=PARAMETERS).model_copy(update=changes)


def result_of(settled: Settled) -> RequestFinished:
    return RequestFinished.model_validate_json(settled.outputs[0].value or b"")


def letter_of(output: Output) -> DeadLetter:
    return DeadLetter.model_validate_json(dict(output.headers)["dead-letter"] or b"")


def test_an_event_goes_on_with_versions_timing_key_and_headers() -> None:
    (output,) = settle(anonymized()).outputs
    event = RequestAnonymized.model_validate_json(output.value or b"")
    assert (output.topic, output.key) == ("llm.anonymized", b"c1")
    assert event.context.versions == {"preprocess": "1", "toy": "0.1"}
    (timing,) = event.context.timings
    assert (timing.stage, timing.queued_ms, timing.processing_ms) == ("toy", 100, 50)
    headers = dict(output.headers)
    assert headers["schema"] == b"penstock.request-anonymized/1"
    assert (headers["request-id"], headers["tenant"], headers["deadline"]) == (b"r1", b"acme", b"9999")
    assert headers["ce_time"] == b"1970-01-01T00:00:02.050+00:00"


def test_the_granted_priority_decides_the_lane_of_an_event_and_results_have_none() -> None:
    bulk = EVENT.model_copy(update={"context": CONTEXT.model_copy(update={"priority": "bulk"})})
    (output,) = settle(anonymized(context=bulk.context), event=bulk).outputs
    assert (output.topic, dict(output.headers)["priority"]) == ("llm.anonymized.bulk", b"bulk")
    settled = settle(finish(bulk, status="blocked", now_ms=2_010), event=bulk)
    assert [one.topic for one in settled.outputs] == ["llm.results"]


def test_a_request_is_demoted_once_by_the_stage_that_did_it() -> None:
    lower = CONTEXT.model_copy(update={"priority": "bulk", "requested_priority": "interactive"})
    assert settle(anonymized(context=lower), raw=True).demoted
    assert not settle(anonymized(context=lower), event=EVENT.model_copy(update={"context": lower})).demoted
    assert not settle(anonymized(), raw=True).demoted
    result = result_of(settle(finish(EVENT.model_copy(update={"context": lower}), status="blocked", now_ms=2_010)))
    assert (result.priority, result.requested_priority) == ("bulk", "interactive")


def test_a_terminal_result_is_the_requests_end() -> None:
    settled = settle(finish(EVENT, status="blocked", now_ms=2_010))
    result = result_of(settled)
    assert [output.topic for output in settled.outputs] == ["llm.results"]
    assert (settled.status, settled.code) == ("blocked", None)
    assert result.redactions == {"EMAIL_ADDRESS": 1}
    assert result.versions["toy"] == "0.1"


def test_an_error_ends_in_a_result_and_a_dead_letter_with_the_original() -> None:
    settled = settle(InvalidRequest("bad field", code="invalid_field", field="prompt", limit=3))
    result, letter = result_of(settled), letter_of(settled.outputs[1])
    assert (settled.status, settled.code) == ("failed", "invalid_field")
    assert result.error is not None
    assert (result.error.stage, result.error.field, result.error.limit) == ("toy", "prompt", 3)
    assert result.redactions == {"EMAIL_ADDRESS": 1}
    output = settled.outputs[1]
    assert (output.topic, output.key, output.value) == ("llm.dead-letters", RECORD.key, RECORD.value)
    assert output.headers[:2] == [("tenant", b"acme"), ("custom", b"kept")]
    assert len(output.headers) == 3
    assert (letter.request_id, letter.attempts, letter.source.offset) == ("r1", 2, 3)
    assert letter.error == result.error


def test_expired_is_a_result_alone() -> None:
    settled = settle(Expired("late"))
    assert [output.topic for output in settled.outputs] == ["llm.results"]
    assert (settled.status, settled.code) == ("expired", "deadline_exceeded")


def test_a_duplicate_is_a_dead_letter_alone() -> None:
    settled = settle(DuplicateRequest("seen").about(CONTEXT), raw=True)
    assert [output.topic for output in settled.outputs] == ["llm.dead-letters"]
    assert (settled.status, settled.code) == (None, "duplicate_request")


def test_a_raw_request_is_named_by_its_error_else_by_what_its_headers_offer() -> None:
    known = settle(InvalidRequest("bad").about(CONTEXT), raw=True)
    assert result_of(known).id == "r1"
    headers = (("tenant", b"other"), ("request-id", b"not an id"), ("priority", b"\xff"))
    record = Record("llm.requests", 4, 5, -1, None, b"\xff", headers)
    salvaged = result_of(settle(InvalidRequest("bad"), raw=True, record=record))
    assert salvaged.tenant == "other"
    assert salvaged.id == salvaged.conversation_id
    assert salvaged.id == request_id_of(Source(topic="llm.requests", partition=4, offset=5))


@pytest.mark.parametrize("headers", [(("request-id", b"a\n"),), (("deadline", b"9" * 999),)])
def test_no_header_makes_a_refusal_fail(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    record = Record("llm.requests", 4, 5, -1, b"a\n", None, headers)
    assert result_of(settle(InvalidRequest("bad"), raw=True, record=record)).status == "failed"


def test_an_event_too_large_for_its_topic_fails_with_the_limit() -> None:
    limit = LIMIT["llm.anonymized"] - RECORD_OVERHEAD_BYTES
    spare = limit - len(settle(anonymized(prompt=(PromptPart(kind="text", text=""),))).outputs[0].value or b"")
    fits = anonymized(prompt=(PromptPart(kind="text", text="x" * spare),))
    assert [output.topic for output in settle(fits).outputs] == ["llm.anonymized"]
    too_large = anonymized(prompt=(PromptPart(kind="text", text="x" * (spare + 1)),))
    settled = settle(too_large)
    error = result_of(settled).error
    assert error is not None
    assert (settled.status, error.code, error.limit) == ("failed", "limit_exceeded", limit)
    assert [output.topic for output in settled.outputs] == ["llm.results", "llm.dead-letters"]


def test_an_answer_too_large_for_its_topic_fails_with_the_limit() -> None:
    result = finish(EVENT, status="completed", now_ms=1)
    large = result.model_copy(update={"metadata": {"m": "x" * LIMIT["llm.results"]}})
    assert result_of(settle(large)).status == "failed"


def test_findings_that_fill_a_record_do_not_keep_a_request_from_ending() -> None:
    findings = Findings(redactions={f"TYPE_{i:0>100}": 1 for i in range(40_000)})
    event = EVENT.model_copy(update={"findings": findings})
    assert len(event.encode()) > LIMIT["llm.results"]
    settled = settle(InvalidRequest("bad"), event=event)
    assert (result_of(settled).id, result_of(settled).redactions) == ("r1", {})
    assert [output.topic for output in settled.outputs] == ["llm.results", "llm.dead-letters"]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (anonymized(prompt=(PromptPart(kind="text", text="\ud800"),)), "invalid_outcome"),
        (TokensGenerated(request_id="r1", sequence=0, text=""), "unexpected_outcome"),
        (None, "unexpected_outcome"),
        (InvalidRequest("\ud800 is half a pair", field="\udfff"), "invalid_request"),
    ],
)
def test_an_outcome_that_cannot_be_written_fails_its_request_alone(outcome: Message | PenstockError, code: str) -> None:
    settled = settle(outcome)
    assert (settled.status, settled.code) == ("failed", code)
    assert [output.topic for output in settled.outputs] == ["llm.results", "llm.dead-letters"]


def test_what_follows_is_a_child_of_the_send_span(spans: InMemorySpanExporter) -> None:
    (output,) = settle(anonymized()).outputs
    by_name = {span.name: span for span in spans.get_finished_spans()}
    send, process = by_name["send llm.anonymized"], by_name["process llm.preprocessed"]
    assert send.parent is not None
    assert send.parent.span_id == process.context.span_id
    traceparent = (dict(output.headers)["traceparent"] or b"").decode()
    assert traceparent.split("-")[1:3] == [f"{send.context.trace_id:032x}", f"{send.context.span_id:016x}"]
    attributes = dict(process.attributes or {})
    assert (attributes["penstock.request.id"], attributes["penstock.tenant"]) == ("r1", "acme")
    assert dict(send.attributes or {})["messaging.destination.name"] == "p.llm.anonymized"


def test_result_and_dead_letter_know_their_trace(spans: InMemorySpanExporter) -> None:
    settled = settle(InvalidRequest("bad"))
    trace_id = f"{spans.get_finished_spans()[0].context.trace_id:032x}"
    assert result_of(settled).trace_id == letter_of(settled.outputs[1]).trace_id == trace_id
    assert json.loads(settled.outputs[0].value or b"")["trace_id"] == trace_id


def safety_settler() -> Settler:
    return Settler("safety", {}, Names("p."))


def anonymized_record(**changes: Any) -> Inbound:
    fields: dict[str, Any] = {
        "topic": "p.llm.anonymized",
        "partition": 1,
        "offset": 9,
        "timestamp_ms": 1_900,
        "key": b"c1",
        "value": b"body",
        "headers": (("attempt", b"0"), ("tenant", b"acme")),
    }
    return Inbound(record=Record(**fields | changes), now_ms=2_000, event=EVENT)


def test_a_delayed_record_is_itself_and_four_headers_more() -> None:
    settler, inbound = safety_settler(), anonymized_record()
    assert settler.delayable(inbound)
    settled = settler.delay(inbound, RateLimited("slow down"), attempts=2, not_before_ms=5_000)
    assert (settled.status, settled.code) == (None, None)
    (output,) = settled.outputs
    assert (output.topic, output.key, output.value, output.timestamp_ms) == ("llm.retry.safety", b"c1", b"body", 1_900)
    added = [
        ("attempt", b"2"),
        ("not-before", b"5000"),
        ("retry-of", b"p.llm.anonymized/1/9"),
        ("retry-code", b"rate_limited"),
    ]
    assert output.headers == [*inbound.record.headers, *added]


@pytest.mark.parametrize("written", [-1, 1_900, 10_000_000])
def test_a_delayed_record_is_never_so_old_that_retention_takes_it(written: int) -> None:
    inbound = anonymized_record(timestamp_ms=written)
    (output,) = safety_settler().delay(inbound, Overloaded("full"), attempts=1, not_before_ms=20_000_000).outputs
    assert output.timestamp_ms == 20_000_000 - 3_600_000
    young = anonymized_record(timestamp_ms=19_000_000)
    (output,) = safety_settler().delay(young, Overloaded("full"), attempts=1, not_before_ms=20_000_000).outputs
    assert output.timestamp_ms == 19_000_000


def test_a_second_delay_takes_the_place_of_the_first_and_a_dead_letter_of_both() -> None:
    settler, first = safety_settler(), anonymized_record()
    (once,) = settler.delay(first, RateLimited("slow down"), attempts=2, not_before_ms=5_000).outputs
    again = anonymized_record(offset=40, headers=tuple(once.headers))
    assert again.record.source == first.record.source
    (twice,) = settler.delay(again, Overloaded("full"), attempts=3, not_before_ms=9_000).outputs
    assert twice.headers[:-4] == list(first.record.headers)
    assert dict(twice.headers)["retry-of"] == b"p.llm.anonymized/1/9"
    last = anonymized_record(offset=50, headers=tuple(twice.headers))
    result, dead = settler.settle(last, Overloaded("full"), finished_ms=9_500, attempts=4).outputs
    letter = letter_of(dead)
    assert (letter.attempts, letter.source.place) == (4, "p.llm.anonymized/1/9")
    assert dead.headers[:-1] == list(first.record.headers)
    assert RequestFinished.model_validate_json(result.value or b"").status == "failed"


@pytest.mark.parametrize("place", ["p.llm.anonymized/0/1", "p.llm.anonymized/1/9", "p.llm.requests/1/1"])
def test_a_place_that_the_record_cannot_have_had_is_not_believed(place: str) -> None:
    headers = (("attempt", b"9"), ("not-before", b"1"), ("retry-of", place.encode()), ("retry-code", b"x"))
    inbound = anonymized_record(headers=headers)
    assert inbound.record.delayed is None
    assert inbound.record.source.place == "p.llm.anonymized/1/9"


@pytest.mark.parametrize(("stage", "beyond"), [("toy", -10_000), ("safety", 0)])
def test_what_has_no_retry_topic_or_no_room_for_the_headers_cannot_be_delayed(stage: str, beyond: int) -> None:
    size = LIMIT["llm.anonymized"] - delays.MAX_BYTES + beyond
    assert not Settler(stage, {}, Names("p.")).delayable(anonymized_record(value=b"x" * size))
    assert Settler("safety", {}, Names("p.")).delayable(anonymized_record(value=b"x" * (size - 100)))


def test_a_claimed_record_waits_and_dies_as_the_claim_it_was() -> None:
    settler = safety_settler()
    claimed = anonymized_record(
        value=b"x" * LIMIT["llm.anonymized"], in_topic=b"the claim", headers=(("claim", b"penstock.claim/1"),)
    )
    assert settler.delayable(claimed), "what counts is what stands in the topic"
    (waiting,) = settler.delay(claimed, Overloaded("full"), attempts=1, not_before_ms=5_000).outputs
    assert waiting.value == b"the claim"
    assert waiting.headers[0] == ("claim", b"penstock.claim/1")
    _, dead = settler.settle(claimed, Overloaded("full"), finished_ms=9_500, attempts=4).outputs
    assert (dead.value, dead.headers[0]) == (b"the claim", ("claim", b"penstock.claim/1"))


def test_a_record_that_the_retry_topic_does_not_take_ends() -> None:
    settler, inbound = safety_settler(), anonymized_record()
    settled = settler.delay(inbound, Overloaded("full"), attempts=1, not_before_ms=5_000)
    ended = settler.too_large(settled, {id(settled.outputs[0])}, finished_ms=3_000)
    assert [output.topic for output in ended.outputs] == ["llm.results", "llm.dead-letters"]
    assert ended.code == "record_too_large"
