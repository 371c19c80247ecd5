"""`penstock.runtime.pace`: which of the records that wait can be answered in time."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest

from penstock.contracts.errors import Expired
from penstock.contracts.events import GenerationParameters, RequestContext, RequestScreened, Source
from penstock.runtime.calls import Work
from penstock.runtime.intake import Fresh
from penstock.runtime.pace import Pace
from penstock.runtime.progress import Progress
from penstock.runtime.stage import Inbound, Outcome, Record

LATE = Expired("late")


def work(deadline_ms: int | None = None, max_tokens: int = 32) -> Work:
    context = RequestContext(
        request_id="r",
        conversation_id="c",
        deadline_ms=deadline_ms,
        submitted_ms=1,
        source=Source(topic="llm.requests", partition=0, offset=0),
    )
    parameters = GenerationParameters(model="m", max_tokens=max_tokens)
    event = RequestScreened(context=context, prompt=(), parameters=parameters)
    record = Record("t", 0, 0, 1, b"c", b"{}")
    return Work(Inbound(record, 1, event), Fresh(record, Progress(0)), "r")


def answer() -> Outcome:
    return work().inbound.expect(RequestScreened)


def paced(*seconds: float, max_tokens: int = 32) -> Pace:
    pace = Pace("inference")
    for each in seconds:
        pace.ended(work(max_tokens=max_tokens), answer(), each)
    return pace


def test_nothing_is_too_late_before_anything_was_measured_or_without_a_deadline() -> None:
    assert Pace("inference").too_late(work(deadline_ms=1_000), 999) is None
    assert paced(5.0).too_late(work(), 10**15) is None


def test_what_cannot_be_answered_in_time_expires_and_is_told_why() -> None:
    pace = paced(*[2.0] * 50)
    assert pace.enough_s(work()) == pytest.approx(2.0, abs=0.01)
    assert pace.too_late(work(deadline_ms=3_100), 1_000) is None
    late = pace.too_late(work(deadline_ms=2_900), 1_000)
    assert late is not None
    assert (late.code, late.limit) == ("deadline_exceeded", 2_900)
    assert "1900 ms before the deadline" in late.message
    assert "stage inference" in late.message


def test_uneven_calls_are_given_more_time() -> None:
    assert paced(*[1.0, 3.0] * 50).enough_s(work()) > 4.5


def test_short_and_long_answers_are_measured_apart() -> None:
    pace = paced(*[60.0] * 20, max_tokens=2_000)
    assert pace.too_late(work(deadline_ms=2_000, max_tokens=20), 1_000) is None
    assert pace.too_late(work(deadline_ms=2_000, max_tokens=1_500), 1_000) is not None


def test_what_the_ledger_answered_and_what_failed_say_nothing() -> None:
    pace = paced(*[2.0] * 50)
    for _ in range(50):
        pace.ended(work(), answer(), 0.0)
        pace.ended(work(), LATE, 0.5)
    assert pace.enough_s(work()) == pytest.approx(2.0, abs=0.01)


def test_calls_cut_off_by_their_deadlines_show_that_the_backend_got_slower() -> None:
    pace = paced(*[1.0] * 50)
    assert pace.too_late(work(deadline_ms=4_000), 1_000) is None
    for _ in range(30):
        pace.ended(work(), LATE, max(1.2, pace.enough_s(work())))
    assert pace.too_late(work(deadline_ms=4_000), 1_000) is not None


def overloaded(pace: Pace | None, *, seconds: float = 120.0) -> float:
    """The share of what eight rows can do that is answered in time, with ten times as much coming, first come first."""
    chosen = random.Random(1)
    mean_s, rows, patience_s = 0.5, 8, 4.0
    rate = 10 * rows / mean_s
    waiting: deque[tuple[float, Work]] = deque()
    running: list[tuple[float, float, float]] = []
    came, now, answered = 0, 0.0, 0
    while now < seconds:
        now += 0.005
        while came < rate * now:
            deadline = came / rate + patience_s
            waiting.append((deadline, work(deadline_ms=int(deadline * 1000))))
            came += 1
        while running and running[0][0] <= now:
            ends, began, deadline = heapq.heappop(running)
            if pace is not None:
                pace.ended(work(), answer() if ends <= deadline else LATE, min(ends, deadline) - began)
            answered += ends <= deadline
        while len(running) < rows and waiting:
            deadline, one = waiting.popleft()
            if deadline < now or (pace is not None and pace.too_late(one, int(now * 1000)) is not None):
                continue
            heapq.heappush(running, (now + chosen.uniform(0.4, 0.6), now, deadline))
    return answered / (seconds * rows / mean_s)


def test_under_overload_nearly_all_work_is_of_use() -> None:
    assert overloaded(Pace("inference")) > 0.9


def test_without_it_hardly_any_is() -> None:
    assert overloaded(None) < 0.2
