"""The bookkeeping of a run: what is awaited, answered, repeated, refused."""

from __future__ import annotations

from penstock.cli.sent import Refused, Sent
from penstock.contracts.events import Source
from penstock.contracts.results import RequestFinished, Status


def result(request_id: str, status: Status = "completed") -> RequestFinished:
    return RequestFinished(
        id=request_id,
        created=0,
        status=status,
        conversation_id=request_id,
        tenant="default",
        priority="interactive",
        source=Source(topic="llm.requests", partition=0, offset=0),
    )


def test_awaited_until_answered() -> None:
    sent = Sent()
    sent.published("b", 2)
    sent.published("a", 1)
    assert sent.missing == ["a", "b"]
    assert sent.answered(result("a", "blocked"))
    assert sent.missing == ["b"]
    assert not sent.ok
    assert sent.answered(result("b"))
    assert sent.ok
    assert sent.statuses == {"blocked": 1, "completed": 1}


def test_a_strangers_result_is_not_taken() -> None:
    sent = Sent()
    sent.published("a", 1)
    assert not sent.answered(result("other"))
    assert sent.results == {}


def test_a_second_result_is_counted_and_spoils_the_run() -> None:
    sent = Sent()
    sent.published("a", 1)
    assert sent.answered(result("a"))
    assert not sent.answered(result("a"))
    assert sent.repeated == 1
    assert not sent.ok


def test_a_repeated_id_is_awaited_once() -> None:
    sent = Sent()
    sent.published("a", 1)
    sent.published("a", 5)
    assert (sent.duplicates, sent.missing, sent.line_of) == (1, ["a"], {"a": 1})


def test_a_repeat_after_the_answer_is_not_awaited_again() -> None:
    sent = Sent()
    sent.published("a", 1)
    sent.answered(result("a"))
    sent.published("a", 2)
    assert not sent.waiting


def test_what_was_not_delivered_is_not_awaited() -> None:
    sent = Sent()
    sent.published("a", 1)
    sent.published("a", 2)
    sent.refuse(Refused(1, "MSG_TIMED_OUT", "late"), "a")
    assert sent.waiting
    sent.refuse(Refused(2, "MSG_TIMED_OUT", "late"), "a")
    assert not sent.waiting
    assert not sent.ok
