"""What a person sees of results: everything that matters, and nothing that takes the terminal over."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from penstock.cli.render import printable, result_line, summary
from penstock.cli.sent import Refused, Sent
from penstock.contracts.events import Source, StageTiming, Usage, Verdict
from penstock.contracts.results import AnswerMessage, Choice, ErrorDetail, RequestFinished


def finished(**fields: Any) -> RequestFinished:
    base: dict[str, Any] = {
        "id": "r-1",
        "created": 0,
        "status": "completed",
        "conversation_id": "c",
        "tenant": "default",
        "priority": "interactive",
        "source": Source(topic="llm.requests", partition=0, offset=0),
        "total_ms": 312.4,
    }
    return RequestFinished(**{**base, **fields})


def verdict(action: Any, score: float, label: str = "injection") -> Verdict:
    return Verdict(
        direction="prompt", label=label, score=score, action=action, detector="d", digest="x", part=0, start=0, end=1
    )


def said(content: str) -> tuple[Choice, ...]:
    return (Choice(message=AnswerMessage(content=content), finish_reason="stop"),)


def test_a_completed_result_tells_redactions_tokens_and_times() -> None:
    line = result_line(
        finished(
            redactions={"EMAIL_ADDRESS": 2, "PHONE_NUMBER": 1},
            restored=1,
            usage=Usage(prompt_tokens=12, completion_tokens=34, total_tokens=46),
            timings=(
                StageTiming(stage="preprocess", queued_ms=1, processing_ms=3.14),
                StageTiming(stage="inference", queued_ms=2, processing_ms=280),
            ),
        )
    ).plain
    for part in (
        "completed",
        "r-1",
        "redacted EMAIL_ADDRESS (2), PHONE_NUMBER",
        "restored 1",
        "12 → 34 tokens",
        "312 ms (preprocess 3.14, inference 280 ms)",
    ):
        assert part in line


def test_a_blocked_result_tells_the_worst_verdict_once_and_no_allowed_ones() -> None:
    line = result_line(
        finished(
            status="blocked", verdicts=(verdict("block", 0.8), verdict("block", 0.98), verdict("allow", 0.1, "abuse"))
        )
    ).plain
    assert line.count("block prompt: injection") == 1
    assert "injection 0.98" in line
    assert "abuse" not in line


def test_a_failed_result_tells_code_and_reason() -> None:
    error = ErrorDetail(code="invalid_field", message="max_tokens: expected at least 1", stage="preprocess")
    assert "invalid_field: max_tokens: expected at least 1" in result_line(finished(status="failed", error=error)).plain


def test_the_answer_is_shown_only_when_asked_for() -> None:
    result = finished(choices=said("a secret answer"))
    assert "secret" not in result_line(result).plain
    assert "“a secret answer”" in result_line(result, answer=True).plain


def test_an_answer_cannot_drive_the_terminal_or_the_markup() -> None:
    result = finished(choices=said("\x1b[2J[bold red]x[/]\u202e\nnext"))
    console = Console(force_terminal=True, color_system=None, width=200, soft_wrap=True)
    with console.capture() as capture:
        console.print(result_line(result, answer=True))
    shown = capture.get()
    assert "\x1b[2J" not in shown
    assert "\\u001b[2J[bold red]x[/]\\u202e next" in shown


def test_printable_keeps_letters_of_all_scripts() -> None:
    assert printable("Grüße 日本 🙂 \ud800\x07") == "Grüße 日本 🙂 \\ud800\\u0007"


def test_the_summary_names_what_is_missing_and_what_was_refused() -> None:
    sent = Sent(lines=3, delivered=2)
    sent.published("r-1", 1)
    sent.published("r-2", 2)
    sent.answered(finished(id="r-1"))
    sent.refuse(Refused(3, "record_too_large", "line 3: too long"))
    text = "\n".join(line.plain for line in summary(sent, waited=True))
    assert "2 of 3 records delivered to llm.requests; 1 terminal results: 1 completed" in text
    assert "1 without a terminal result in time: r-2 (line 2)" in text
    assert "1 not sent, record_too_large, first: line 3: line 3: too long" in text


def test_the_summary_lists_at_most_twenty_missing() -> None:
    sent = Sent()
    for number in range(1, 31):
        sent.published(f"r-{number}", number)
    text = "\n".join(line.plain for line in summary(sent, waited=True))
    assert "r-20 (line 20) and 10 more" in text
    assert "r-21" not in text
