"""What bad input gets from the five services: its own typed error, its bytes kept, and nobody else delayed."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from tests.support.kafka import Publishing, Slot, committed_offsets, place_of
from tests.support.stack import Stack, wait_until

from penstock.contracts import topics
from penstock.contracts.results import DeadLetter, RequestFinished

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

QUIET_S = 4.0
"""Long enough for anything that loops to show: a stage takes milliseconds."""


@dataclass(frozen=True)
class Case:
    """One kind of bad input and the error it gets. `limit` None: the error has no limit to name."""

    name: str
    value: bytes | None
    code: str
    field: str
    limit: int | float | str | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


def body(**fields: object) -> bytes:
    return json.dumps({"prompt": "What is a river?", "max_tokens": 4, **fields}).encode()


def without(*names: str) -> bytes:
    whole = {"prompt": "What is a river?", "max_tokens": 4}
    return json.dumps({name: value for name, value in whole.items() if name not in names}).encode()


CASES = (
    Case("not JSON", b"What is a river?", "invalid_json", "body"),
    Case("JSON cut off", body()[:-9], "invalid_json", "body"),
    Case("an array", b'["What is a river?"]', "invalid_field", "body", "object"),
    Case("a string", b'"What is a river?"', "invalid_field", "body", "object"),
    Case(
        "messages of another shape",
        body(prompt=None, messages={"role": "user"}),
        "invalid_field",
        "messages",
        "an array",
    ),
    Case("a field it does not have", body(promt="promt-value"), "unknown_field", "promt"),
    Case("neither messages nor prompt", without("prompt"), "missing_field", "messages"),
    Case("a message without content", b'{"messages": [{"role": "user"}]}', "missing_field", "messages[0].content"),
    Case("invalid UTF-8", b'{"prompt": "caf\xe9"}', "invalid_utf8", "body", "UTF-8"),
    Case("a null byte", b'{"prompt": "a\x00b"}', "invalid_characters", "body", "no NUL"),
    Case("an escaped null character", b'{"prompt": "a\\u0000b"}', "invalid_characters", "prompt", "no NUL"),
    Case("an empty prompt", body(prompt=""), "empty_prompt", "prompt", "at least one visible character"),
    Case("an invisible prompt", body(prompt=" \u200b\n"), "empty_prompt", "prompt", "at least one visible character"),
    Case("no bytes", b"", "invalid_json", "body"),
    Case("a tombstone", None, "empty_record", "body"),
    Case("10 MB", body(prompt="river " * 1_747_626), "limit_exceeded", "body", 1_048_576),
    Case(
        "an unknown schema",
        body(),
        "unknown_schema",
        "header schema",
        "penstock.completion-request/1",
        [("schema", b"acme.completion/1")],
    ),
    Case(
        "a schema version that is no number",
        body(),
        "unknown_schema",
        "header schema",
        "penstock.completion-request/1",
        [("schema", b"penstock.completion-request/one")],
    ),
    Case(
        "a future schema version",
        body(),
        "unsupported_schema_version",
        "header schema",
        1,
        [("schema", b"penstock.completion-request/2")],
    ),
    Case(
        "a deadline in words",
        body(),
        "invalid_header",
        "header deadline",
        "a whole number from 0 to 253402300799999",
        [("deadline", b"tomorrow")],
    ),
    Case(
        "a priority it does not have",
        body(),
        "invalid_header",
        "header priority",
        "interactive or bulk",
        [("priority", b"7")],
    ),
    Case(
        "a header that is not UTF-8", body(), "invalid_header", "header tenant", "UTF-8 text", [("tenant", b"\xff\xfe")]
    ),
    Case("100 levels of nesting", b'{"prompt": ' + b"[" * 100 + b"]" * 100 + b"}", "nesting_too_deep", "body", 32),
    Case("a lone surrogate", b'{"prompt": "a \\ud83d b"}', "invalid_unicode", "prompt", "Unicode scalar values"),
    Case("a negative max_tokens", body(max_tokens=-1), "invalid_field", "max_tokens", 1),
    Case("max_tokens in words", body(max_tokens="four"), "invalid_field", "max_tokens", "a whole number"),
    Case("more max_tokens than the model has", body(max_tokens=131_072), "limit_exceeded", "max_tokens"),
    Case("a temperature above its range", body(temperature=3), "invalid_field", "temperature", 2),
    Case("an unknown model", body(model="gpt-99"), "unknown_model", "model", "penstock-lm, champion"),
)
NAMES = [case.name for case in CASES]


@dataclass(frozen=True)
class Outcome:
    """Everything that came of the whole lot, once it had come to rest."""

    bad: dict[str, Slot]
    good: list[Slot]
    twins: tuple[Slot, Slot]
    expired: Slot
    results: dict[Slot, list[RequestFinished]]
    letters: dict[Slot, tuple[DeadLetter, bytes | None]]
    totals: tuple[int, int]
    """Results and dead letters of the whole installation, counted twice with a pause between."""
    totals_later: tuple[int, int]


@pytest.fixture(scope="module")
def outcome(stack: Stack) -> Outcome:
    good = Publishing(body())
    sent: list[Publishing] = [good]
    for case in CASES:
        sent += [Publishing(case.value, case.headers), good]
    twin = Publishing(body(), [("request-id", f"twin-{uuid.uuid4().hex}".encode())], key=b"twins")
    late = Publishing(body(), [("deadline", str(time.time_ns() // 1_000_000 - 60_000).encode())])
    sent += [twin, twin, late, good]
    places = stack.send(sent)
    bad = {case.name: places[1 + 2 * index] for index, case in enumerate(CASES)}
    first, second, expired = places[-4:-1]
    healthy = [place for place, request in zip(places, sent, strict=True) if request is good]
    stack.wait_results([*bad.values(), *healthy, first, expired], seconds=120)
    wait_until(lambda: second in stack.dead_letters(), "the duplicate's dead letter")

    def totals() -> tuple[int, int]:
        return len(stack.read(topics.RESULTS)), len(stack.read(topics.DEAD_LETTERS))

    before = totals()
    time.sleep(QUIET_S)
    found: dict[Slot, list[RequestFinished]] = {}
    for result in stack.results():
        found.setdefault(place_of(result), []).append(result)
    return Outcome(bad, healthy, (first, second), expired, found, stack.dead_letters(), before, totals())


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_it_gets_a_typed_error_that_names_field_and_limit(outcome: Outcome, case: Case) -> None:
    (result,) = outcome.results[outcome.bad[case.name]]
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.field, result.error.stage) == (case.code, case.field, "preprocess")
    if case.name == "more max_tokens than the model has":
        assert isinstance(result.error.limit, int)
    else:
        assert result.error.limit == case.limit
    assert not result.error.retriable
    assert result.choices == ()
    name = case.field.removeprefix("header ")
    assert name in result.error.message or case.value is None
    for secret in ("What is a river", "tomorrow", "gpt-99", "promt-value"):
        assert secret not in result.model_dump_json()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_its_original_bytes_are_kept(outcome: Outcome, case: Case) -> None:
    letter, kept = outcome.letters[outcome.bad[case.name]]
    assert kept == case.value
    (result,) = outcome.results[outcome.bad[case.name]]
    assert letter.error == result.error
    assert letter.request_id == result.id
    assert letter.trace_id == result.trace_id
    assert letter.attempts == 1


def test_good_requests_between_them_complete(outcome: Outcome) -> None:
    statuses = Counter(result.status for place in outcome.good for result in outcome.results[place])
    assert statuses == {"completed": len(outcome.good)}


def test_a_duplicate_id_has_one_result_and_the_second_record_is_kept(outcome: Outcome) -> None:
    first, second = outcome.twins
    (result,) = outcome.results[first]
    assert result.status == "completed"
    assert second not in outcome.results
    assert first not in outcome.letters
    letter, kept = outcome.letters[second]
    assert letter.error.code == "duplicate_request"
    assert letter.error.field == "request-id"
    assert letter.request_id == result.id
    assert kept == body()


def test_an_expired_request_has_its_own_status_and_no_dead_letter(outcome: Outcome) -> None:
    (result,) = outcome.results[outcome.expired]
    assert result.status == "expired"
    assert result.error is not None
    assert (result.error.code, result.error.field) == ("deadline_exceeded", "header deadline")
    assert isinstance(result.error.limit, int)
    assert outcome.expired not in outcome.letters


def test_every_record_is_accounted_for_and_nothing_loops(outcome: Outcome, stack: Stack) -> None:
    assert outcome.totals == outcome.totals_later
    assert {place: len(found) for place, found in outcome.results.items() if len(found) != 1} == {}
    lanes = topics.siblings(topics.REQUESTS)
    published = stack.read(*lanes)
    for lane in lanes:
        committed = committed_offsets(stack.bootstrap, stack.prefix, "preprocess", lane)
        # records without a key may all land in one partition: the others end where they begin
        ends = dict.fromkeys(committed, 0) | {
            message.partition(): message.offset() + 1
            for message in published
            if message.topic() == f"{stack.prefix}{lane}"
        }
        assert committed == ends
    duplicates = sum(letter.error.code == "duplicate_request" for letter, _ in outcome.letters.values())
    assert len(outcome.results) + duplicates == len(published)
