"""`penstock.runtime.retries`: bounds hold for every error, figure and draw; nothing is planned past a deadline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts import errors
from penstock.contracts.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConnectionFailed,
    Expired,
    InvalidRequest,
    Overloaded,
    PenstockError,
    PolicyName,
    RateLimited,
    RetriableError,
    StageError,
)
from penstock.contracts.events import RequestContext, Source
from penstock.runtime.retries import Delay, GiveUp, Policies, Policy, Wait, late
from penstock.runtime.settings import RetryFigures, ServiceSettings

NOW_MS = 1_700_000_000_000
KINDS: list[type[RetriableError]] = [BackendUnavailable, ConnectionFailed, BackendTimeout, Overloaded, RateLimited]
POLICIES = st.builds(
    Policy,
    attempts=st.integers(1, 100),
    backoff_ms=st.integers(1, 60_000),
    backoff_max_ms=st.integers(1, 3_600_000),
    in_place_max_ms=st.integers(0, 60_000),
    retry_after_max_ms=st.integers(0, 3_600_000),
)
ASKED = st.none() | st.floats()


def same(policy: Policy) -> Policies:
    return Policies(dict.fromkeys(get_args(PolicyName), policy))


def tree(root: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@given(
    policy=POLICIES,
    kind=st.sampled_from(KINDS),
    asked=ASKED,
    attempts=st.integers(1, 200),
    left_ms=st.none() | st.integers(-10_000, 10_000_000),
    share=st.floats(0, 1),
    delayable=st.booleans(),
)
def test_bounds_hold(
    *,
    policy: Policy,
    kind: type[RetriableError],
    asked: float | None,
    attempts: int,
    left_ms: int | None,
    share: float,
    delayable: bool,
) -> None:
    error = kind("down", retry_after_s=asked)
    deadline = None if left_ms is None else NOW_MS + left_ms
    decision = same(policy).decide(
        error,
        attempts=attempts,
        now_ms=NOW_MS,
        deadline_ms=deadline,
        delayable=delayable,
        draw=lambda low, high: low + share * (high - low),
    )
    if isinstance(decision, GiveUp):
        if decision.exhausted:
            assert attempts >= policy.attempts
            assert decision.error is error
        else:
            assert deadline is not None
            assert isinstance(decision.error, Expired)
            assert error.code in decision.error.message
        return
    assert attempts < policy.attempts
    wait_ms = decision.ms if isinstance(decision, Wait) else decision.not_before_ms - NOW_MS
    assert 0 <= wait_ms <= policy.backoff_max_ms + policy.retry_after_max_ms
    if deadline is not None:
        assert NOW_MS + wait_ms < deadline
    if isinstance(decision, Delay):
        assert delayable
        assert wait_ms > policy.in_place_max_ms
    elif delayable:
        assert wait_ms <= policy.in_place_max_ms


@given(policy=POLICIES, asked=st.floats(min_value=0, allow_nan=False), attempts=st.integers(1, 100))
def test_what_the_other_side_asks_for_is_granted_up_to_the_cap(policy: Policy, asked: float, attempts: int) -> None:
    wait_ms = policy.wait_ms(attempts, asked, lambda low, _: low)
    assert wait_ms >= min(asked * 1000, policy.retry_after_max_ms)
    assert wait_ms <= policy.retry_after_max_ms


@given(policy=POLICIES, attempts=st.integers(1, 99))
def test_the_bound_doubles_up_to_its_maximum(policy: Policy, attempts: int) -> None:
    def longest(after: int) -> int:
        return policy.wait_ms(after, None, lambda _, high: high)

    assert longest(1) == min(policy.backoff_ms, policy.backoff_max_ms)
    assert longest(attempts + 1) == min(2 * longest(attempts), policy.backoff_max_ms)
    assert policy.wait_ms(attempts, None, lambda low, _: low) == 0


@pytest.mark.parametrize("kind", [kind for kind in tree(PenstockError) if not kind.retriable])
def test_what_is_not_retriable_is_given_up_at_once(kind: type[PenstockError]) -> None:
    error = kind("wrong")
    decision = Policies.of(ServiceSettings()).decide(error, attempts=1, now_ms=NOW_MS, deadline_ms=None)
    assert decision == GiveUp(error)


def test_every_retriable_class_has_a_policy_and_they_tell_the_four_troubles_apart() -> None:
    kinds = [kind for kind in tree(RetriableError) if kind.__module__ == errors.__name__]
    assert {kind.policy for kind in kinds} == set(get_args(PolicyName))
    assert len({kind.default_code for kind in kinds}) == len(kinds)
    told_apart = [ConnectionFailed, BackendTimeout, Overloaded, RateLimited]
    assert len({kind.policy for kind in told_apart}) == 4


def test_a_class_has_its_own_figures_and_the_rest_in_common() -> None:
    settings = ServiceSettings(
        retry_attempts=7, retry_backoff_ms=20, retry_policies={"timeout": RetryFigures(attempts=2, in_place_max_ms=0)}
    )
    policies = Policies.of(settings)
    late_one, down = BackendTimeout("late"), BackendUnavailable("down")
    assert policies.decide(late_one, attempts=2, now_ms=NOW_MS, deadline_ms=None) == GiveUp(late_one, exhausted=True)
    assert policies.decide(down, attempts=6, now_ms=NOW_MS, deadline_ms=None, draw=lambda _, high: high) == Wait(640)
    assert policies.decide(late_one, attempts=1, now_ms=NOW_MS, deadline_ms=None, draw=lambda _, high: high) == Delay(
        NOW_MS + 20
    )


def test_the_defaults_are_patient_with_a_backend_that_is_full() -> None:
    policies = Policies.of(ServiceSettings())
    for kind in (Overloaded, RateLimited):
        error = kind("full")
        assert isinstance(policies.decide(error, attempts=9, now_ms=NOW_MS, deadline_ms=None), Wait | Delay)
        assert policies.decide(error, attempts=10, now_ms=NOW_MS, deadline_ms=None) == GiveUp(error, exhausted=True)


def test_the_end_knows_which_request_it_is_about() -> None:
    context = RequestContext(
        request_id="r", conversation_id="c", submitted_ms=1, source=Source(topic="t", partition=0, offset=0)
    )
    end = late(StageError("bug").about(context), attempts=2, deadline_ms=NOW_MS)
    assert end.context is context
    assert "attempt 3" in end.message
    assert late(InvalidRequest("x"), attempts=1, deadline_ms=NOW_MS).context is None
