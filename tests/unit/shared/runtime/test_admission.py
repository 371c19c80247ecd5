"""How many calls run at once, by how soon answers begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.admission import Admission


def admission(highest: int = 100) -> Admission:
    return Admission(lowest=1, highest=highest, target_s=1.0)


def test_late_first_tokens_shrink_the_limit_once_for_each_round() -> None:
    limit = admission()
    for _ in range(10):
        limit.first_output(3.0, running=100, now=50.0)
    assert limit.limit == 66
    limit.first_output(3.0, running=66, now=53.0)
    assert limit.limit == 44


def test_a_used_limit_grows_by_about_one_a_round_and_an_unused_one_does_not() -> None:
    limit = admission()
    limit.first_output(3.0, running=100, now=0.0)
    for _ in range(67):
        limit.first_output(0.1, running=10, now=1.0)
    assert limit.limit == 66
    for _ in range(67):
        limit.first_output(0.1, running=66, now=1.0)
    assert limit.limit == 67


def test_a_backend_that_refuses_shrinks_it() -> None:
    limit = admission()
    limit.refused(0.0)
    assert limit.limit == 66


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 200)), max_size=500))
def test_it_stays_in_its_bounds(reports: list[tuple[float, int]]) -> None:
    limit = admission(20)
    for now, (seconds, running) in enumerate(reports):
        limit.first_output(seconds, running=running, now=float(now))
        assert 1 <= limit.limit <= 20


@pytest.mark.parametrize("capacity", [4, 16, 64])
def test_it_settles_near_what_a_backend_can_hold(capacity: int) -> None:
    """A model backend: beyond its capacity, the first token takes longer in proportion."""
    limit = admission(256)
    now, seen = 0.0, []
    for _ in range(400):
        running = limit.limit
        seconds = 0.9 * max(1.0, running / capacity)
        now += seconds
        for _ in range(running):
            limit.first_output(seconds, running=running, now=now)
        seen.append(running)
    steady = seen[200:]
    assert 0.6 * capacity <= sum(steady) / len(steady) <= 1.25 * capacity
