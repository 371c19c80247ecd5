"""The circuit breaker by a clock of the test's own."""

from __future__ import annotations

import pytest

from penstock_inference.targets.breaker import Breaker
from penstock_inference.targets.config import BreakerFigures


def _breaker(**figures: float) -> Breaker:
    return Breaker(BreakerFigures(**{"window": 4, "failures": 2, "open_s": 10, "open_max_s": 30, **figures}))


def _fail(breaker: Breaker, now: float) -> None:
    breaker.fail(breaker.begin(), now)


def _opened(**figures: float) -> Breaker:
    breaker = _breaker(**figures)
    _fail(breaker, 0)
    _fail(breaker, 0)
    return breaker


def test_it_opens_at_so_many_failures_among_the_newest_calls() -> None:
    breaker = _breaker()
    _fail(breaker, 0)
    for _ in range(3):
        breaker.succeed(breaker.begin())
    _fail(breaker, 0)  # the first failure has left the window
    breaker.succeed(breaker.begin())
    assert breaker.state == "closed"
    _fail(breaker, 0)
    assert breaker.state == "open"


def test_open_it_lets_nothing_through_until_its_time_has_come() -> None:
    breaker = _opened()
    assert not breaker.allows(9.9)
    assert breaker.wait_s(4) == 6
    assert breaker.allows(10)
    assert breaker.wait_s(11) == 0


def test_half_open_it_lets_one_trial_through_at_a_time_and_closes_after_enough() -> None:
    breaker = _opened(successes=2)
    first = breaker.begin()
    assert first
    assert breaker.state == "half_open"
    assert not breaker.allows(100)
    assert breaker.wait_s(100) == 10
    breaker.succeed(first)
    assert breaker.state == "half_open"
    breaker.succeed(breaker.begin())
    assert breaker.state == "closed"
    _fail(breaker, 20)
    assert breaker.state == "closed", "earlier failures are forgotten"


def test_a_trial_that_fails_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    breaker = _opened()
    now, waits = 0.0, []
    for _ in range(3):
        waits.append(breaker.wait_s(now))
        now += waits[-1]
        assert breaker.allows(now)
        _fail(breaker, now)
    assert waits == [10, 20, 30]
    breaker.succeed(breaker.begin())
    breaker.succeed(breaker.begin())
    _fail(breaker, 0)
    _fail(breaker, 0)
    assert breaker.wait_s(0) == 10


def test_a_trial_given_up_says_nothing_and_leaves_room_for_the_next() -> None:
    breaker = _opened()
    breaker.forget(breaker.begin())
    assert breaker.state == "half_open"
    assert breaker.allows(0)


def test_calls_from_before_it_opened_change_nothing() -> None:
    breaker = _breaker()
    calls = [breaker.begin() for _ in range(5)]
    for call in calls[:2]:
        breaker.fail(call, 0)
    assert breaker.state == "open"
    breaker.fail(calls[2], 5)
    breaker.succeed(calls[3])
    assert breaker.wait_s(0) == 10
    trial = breaker.begin()
    breaker.succeed(calls[4])
    assert breaker.state == "half_open"
    breaker.fail(trial, 10)
    assert breaker.state == "open"


def test_figures_that_could_never_open_are_refused() -> None:
    with pytest.raises(ValueError, match="never open"):
        BreakerFigures(window=3, failures=4)
