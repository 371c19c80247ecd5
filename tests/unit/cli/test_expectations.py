"""Comparing what samples came to with what was expected, and the shipped samples themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from penstock.cli.errors import CommandError
from penstock.cli.expectations import Expectations, Expected, compare, differences, load
from penstock.cli.records import Stamp, compose, hard_limit, read_lines
from penstock.cli.sent import Sent
from penstock.contracts.events import Source
from penstock.contracts.results import ErrorDetail, RequestFinished, Status

SAMPLES = Path(__file__).resolve().parents[3] / "deploy" / "samples"


def result(
    request_id: str, status: Status = "completed", code: str | None = None, **redactions: int
) -> RequestFinished:
    error = ErrorDetail(code=code, message="m", stage="preprocess") if code is not None else None
    return RequestFinished(
        id=request_id,
        created=0,
        status=status,
        error=error,
        conversation_id="c",
        tenant="default",
        priority="interactive",
        source=Source(topic="llm.requests", partition=0, offset=0),
        redactions=redactions,
    )


def test_a_result_as_expected_has_no_differences() -> None:
    expected = Expected(statuses=("failed",), code="invalid_json")
    assert differences(expected, result("a", "failed", "invalid_json")) == []
    assert differences(Expected(statuses=("completed",), redacts=("URL",)), result("a", URL=1)) == []


def test_each_difference_is_told() -> None:
    expected = Expected(statuses=("blocked", "failed"), code="x", redacts=("URL",))
    assert differences(expected, result("a")) == [
        "status completed, expected blocked or failed",
        "error code None, expected x",
        "did not redact URL",
    ]


def run_of(expectations: Expectations, *results: RequestFinished, lines: dict[str, int], repeats: int = 0) -> list[str]:
    sent = Sent(line_of=lines, duplicates=repeats)
    sent.results.update({one.id: one for one in results})
    return compare(expectations, sent, "run1")


def test_by_id_without_the_run_and_by_line() -> None:
    expectations = Expectations(
        duplicates=1,
        requests={"s-1": Expected(statuses=("completed",))},
        lines={2: Expected(statuses=("failed",), code="invalid_json")},
    )
    lines = {"s-1-run1": 1, "sample-line-002-run1": 2}
    good = (result("s-1-run1"), result("sample-line-002-run1", "failed", "invalid_json"))
    assert run_of(expectations, *good, lines=lines, repeats=1) == []
    swapped = (result("s-1-run1", "blocked"), result("sample-line-002-run1"))
    assert len(run_of(expectations, *swapped, lines=lines, repeats=1)) == 3
    assert run_of(expectations, *good, lines=lines) == ["0 repeated ids, expected 1"]


def test_what_has_no_expectation_or_was_not_sent_is_told() -> None:
    expectations = Expectations(
        requests={"s-1": Expected(statuses=("completed",))}, lines={9: Expected(statuses=("failed",))}
    )
    assert run_of(expectations, lines={"s-2-run1": 1}) == [
        "line 1 (s-2-run1) has no expectation",
        "line 9 was expected and not sent",
        "s-1 was expected and not sent",
    ]


def test_a_bad_file_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "expectations.json"
    with pytest.raises(CommandError, match="cannot be read"):
        load(path)
    path.write_text('{"requests": {"a": {"statuses": ["done"]}}, "lines": {}}', encoding="utf-8")
    with pytest.raises(CommandError, match=r"requests\.a\.statuses"):
        load(path)


def test_each_shipped_sample_has_one_expectation() -> None:
    expectations = load(SAMPLES / "expectations.json")
    sent = Sent()
    stamp = Stamp(stem="sample-line", run="run1", unique_ids=True)
    with (SAMPLES / "requests.jsonl").open("rb") as stream:
        for line in read_lines(stream, hard_limit()):
            outgoing = compose(line, stamp, 0)
            sent.published(outgoing.request_id, outgoing.line)
    assert compare(expectations, sent, "run1") == []
    assert len(sent.line_of) == expectations.results >= 60


def test_the_shipped_samples_cover_what_they_promise() -> None:
    raw = (SAMPLES / "requests.jsonl").read_bytes()
    bodies = []
    malformed = 0
    for line in io.BytesIO(raw):
        try:
            bodies.append(json.loads(line))
        except ValueError:
            malformed += 1
    objects = [body for body in bodies if isinstance(body, dict)]
    assert malformed >= 3
    assert sum(body.get("stream") is True for body in objects) >= 2
    assert sum("response_format" in body for body in objects) >= 3
    conversations = [body["conversation_id"] for body in objects if "conversation_id" in body]
    assert max(conversations.count(one) for one in conversations) >= 4
    ids = [body["request_id"] for body in objects if isinstance(body.get("request_id"), str)]
    for topic in (
        "injection",
        "personal",
        "encoded",
        "secret",
        "abuse",
        "german",
        "french",
        "spanish",
        "italian",
        "portuguese",
    ):
        assert any(topic in one for one in ids), topic
    # the embedded model answers on a CPU: each answer is short
    assert all(int(body.get("max_tokens", 0)) <= 64 for body in objects)
