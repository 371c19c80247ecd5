"""`penstock_preprocess.rates`: token buckets by tenant, on a clock from outside."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from penstock_preprocess.rates import Rate, Rates

NONE = Rate()


def granted(rates: Rates, tenant: str, times_ms: list[int], tokens: int = 1) -> int:
    return sum(rates.take(tenant, tokens, at) for at in times_ms)


def test_without_a_rate_everything_is_granted() -> None:
    rates = Rates(NONE, {}, burst_s=1)
    assert granted(rates, "a", [0] * 1_000, tokens=10**9) == 1_000


def test_a_burst_is_granted_and_then_the_rate() -> None:
    rates = Rates(Rate(requests=5), {}, burst_s=2)
    assert granted(rates, "a", [0] * 50) == 10
    assert granted(rates, "a", list(range(0, 10_001, 20))) == 50


def test_a_rate_below_one_still_grants_one_at_a_time() -> None:
    rates = Rates(Rate(requests=0.1), {}, burst_s=1)
    assert granted(rates, "a", [0, 5_000, 10_000, 15_000]) == 2


def test_tokens_are_counted_too_and_an_oversized_request_is_paid_back_after() -> None:
    rates = Rates(Rate(tokens=100), {}, burst_s=1)
    assert rates.take("a", 350, 0)
    assert not rates.take("a", 1, 2_500)
    assert rates.take("a", 1, 2_600)


def test_what_is_refused_takes_nothing() -> None:
    rates = Rates(Rate(requests=1, tokens=1_000), {}, burst_s=1)
    assert rates.take("a", 10, 0)
    assert granted(rates, "a", [0] * 100, tokens=10) == 0
    assert rates.take("a", 990, 1_000)


def test_tenants_do_not_share_and_may_have_a_rate_of_their_own() -> None:
    rates = Rates(Rate(requests=1), {"big": Rate(requests=10), "free": NONE}, burst_s=1)
    assert granted(rates, "a", [0] * 20) == 1
    assert granted(rates, "b", [0] * 20) == 1
    assert granted(rates, "big", [0] * 20) == 10
    assert granted(rates, "free", [0] * 20) == 20


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rates = Rates(Rate(requests=1), {}, burst_s=1)
    assert rates.take("a", 1, 10_000)
    assert granted(rates, "a", [0, 9_000, 10_000, 10_500]) == 0
    assert rates.take("a", 1, 11_000)


def test_the_least_recently_used_bucket_goes_first() -> None:
    rates = Rates(Rate(requests=1), {}, burst_s=1, max_tenants=2)
    assert [rates.take(tenant, 1, 0) for tenant in ("a", "b", "a", "c", "a", "b")] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("bad", [{"requests": 0}, {"tokens": -1}, {"request": 5}])
def test_a_rate_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Rate.model_validate(bad)
