"""Budgets: reserved, settled, by period and by whom."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.targets import MemoryBook

from penstock.contracts.errors import LimitExceeded
from penstock_inference.targets.budgets import Spending
from penstock_inference.targets.config import Budgets

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
DAY = 86_400


class Wall:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def _spending(budgets: dict[str, Any], book: MemoryBook | None = None, wall: Wall | None = None) -> Spending:
    return Spending(Budgets.model_validate(budgets), book or MemoryBook(), wall or Wall())


def test_what_is_reserved_is_not_there_for_others_and_what_is_not_used_comes_back() -> None:
    spending = _spending({"total": {"day": 10}})
    first = spending.reserve("acme", 6)
    with pytest.raises(LimitExceeded) as raised:
        spending.reserve("other", 6)
    assert (raised.value.code, raised.value.field, raised.value.limit) == ("limit_exceeded", "budget", 10)
    assert "4 of 10 left" in raised.value.message
    spending.settle(first, 1)
    spending.reserve("other", 9)


def test_a_refusal_sets_nothing_aside() -> None:
    book = MemoryBook()
    spending = _spending({"total": {"day": 10, "month": 5}, "tenants": {"acme": {"day": 3}}}, book)
    for amount in (4, 6):
        with pytest.raises(LimitExceeded):
            spending.reserve("acme", amount)
    assert book.amounts == {}


def test_a_tenant_has_its_own_limit_or_everyones() -> None:
    spending = _spending({"tenants": {"acme": {"day": 5}, "*": {"day": 1}}})
    spending.reserve("acme", 5)
    spending.reserve("a", 1)
    spending.reserve("b", 1)
    for tenant in ("acme", "a", "b"):
        with pytest.raises(LimitExceeded, match="the tenant"):
            spending.reserve(tenant, 0.1)


def test_a_mirrored_call_is_charged_to_the_total_alone() -> None:
    book = MemoryBook()
    _spending({"total": {"day": 5}, "tenants": {"*": {"day": 1}}}, book).reserve(None, 4)
    assert book.amounts == {"2026-11-30/total": 4}


def test_days_and_months_begin_anew_by_utc() -> None:
    wall = Wall()
    spending = _spending({"total": {"day": 2, "month": 3}}, wall=wall)
    spending.reserve("a", 2)
    with pytest.raises(LimitExceeded, match="2026-11-30"):
        spending.reserve("a", 1)
    wall.now += DAY  # December
    spending.reserve("a", 2)
    wall.now += DAY
    with pytest.raises(LimitExceeded, match="2026-12 "):
        spending.reserve("a", 2)
    spending.reserve("a", 1)


def test_a_call_over_midnight_is_settled_where_it_was_reserved() -> None:
    wall, book = Wall(), MemoryBook()
    spending = _spending({"total": {"day": 10}}, book, wall)
    reservation = spending.reserve("a", 5)
    wall.now += DAY
    spending.settle(reservation, 2)
    assert book.amounts == {"2026-11-30/total": 2}


def test_a_call_that_cost_more_than_reserved_is_counted_in_full() -> None:
    spending = _spending({"total": {"day": 10}})
    spending.settle(spending.reserve("a", 1), 10)
    with pytest.raises(LimitExceeded):
        spending.reserve("a", 0.1)


def test_without_limits_nothing_is_kept() -> None:
    book = MemoryBook()
    spending = _spending({}, book)
    spending.settle(spending.reserve("a", 1e9), 1e9)
    assert book.amounts == {}


def test_limits_without_a_book_are_refused() -> None:
    with pytest.raises(ValueError, match="book"):
        Spending(Budgets.model_validate({"total": {"day": 1}}), None)
    spending = Spending(Budgets(), None)
    spending.settle(spending.reserve("a", 1e9), 1e9)


def test_what_others_have_spent_counts() -> None:
    class Shared(MemoryBook):
        def others(self, key: str) -> float:
            return 7.0

    spending = _spending({"total": {"day": 10}}, Shared())
    spending.reserve("a", 3)
    with pytest.raises(LimitExceeded):
        spending.reserve("a", 0.5)
