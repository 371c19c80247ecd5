"""What may be spent on calls: the most that one can cost is reserved before it, what it did cost is settled after.

Reserving first is what makes a limit hold however many calls run at once. An account is a tenant, or all
together, in one day or month by UTC. What is reserved counts as spent until it is settled, and is kept so:
a process that dies in the middle of a call has perhaps paid for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from penstock.contracts.errors import LimitExceeded
from penstock_inference.targets.config import Budgets

TOTAL = "total"


class Account(NamedTuple):
    """Who spends, in which day (2026-11-21) or month (2026-11)."""

    period: str
    scope: str

    @property
    def key(self) -> str:
        """As it is kept."""
        return f"{self.period}/{self.scope}"


class Book(Protocol):
    """Where what this process has spent outlives it, by the accounts' keys: `penstock.runtime.tallies` in a service."""

    def own(self, key: str) -> float:
        """What this process, and the one before it in its place, has kept."""
        ...

    def others(self, key: str) -> float:
        """What all other instances have kept."""
        ...

    def keep(self, key: str, amount: float) -> None:
        """Keep what this process has spent and reserved, in place of what it kept before; returns at once."""
        ...

    def close(self) -> None:
        """Keep what is still under way."""
        ...


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call may cost, and where it is written."""

    accounts: tuple[Account, ...]
    amount: float


class Spending:
    """The accounts that have a limit. Used by one thread; `clock` gives seconds since the epoch."""

    def __init__(self, budgets: Budgets, book: Book | None, clock: Callable[[], float] = time.time) -> None:
        """Without a `book` there must be no limit."""
        if book is None and budgets.limited:
            raise ValueError("budgets need a book to be kept in")
        self._budgets = budgets
        self._book = book
        self._clock = clock

    def reserve(self, tenant: str | None, amount: float) -> Reservation:
        """Set aside what a call of a tenant may cost; None is a call that only the total pays for.

        Raises LimitExceeded, and sets nothing aside, where an account has less left.
        """
        if self._book is None:
            return Reservation((), amount)
        limited = list(self._accounts(tenant))
        for account, limit in limited:
            spent = self._book.own(account.key) + self._book.others(account.key)
            if spent + amount > limit:
                whose = "all requests together" if account.scope == TOTAL else "the tenant"
                raise LimitExceeded(
                    f"the budget of {whose} for {account.period} has {max(0.0, limit - spent):.6g} of {limit:.6g} "
                    f"left, and the call may cost {amount:.6g}; ask for fewer tokens, wait for the next period or "
                    "have the budget raised",
                    field="budget",
                    limit=limit,
                )
        reservation = Reservation(tuple(account for account, _ in limited), amount)
        self._add(reservation, amount)
        return reservation

    def settle(self, reservation: Reservation, cost: float) -> None:
        """The call has ended and cost so much."""
        self._add(reservation, cost - reservation.amount)

    def _add(self, reservation: Reservation, amount: float) -> None:
        if self._book is None:
            return
        for account in reservation.accounts:
            self._book.keep(account.key, max(0.0, self._book.own(account.key) + amount))

    def _accounts(self, tenant: str | None) -> Iterator[tuple[Account, float]]:
        now = datetime.fromtimestamp(self._clock(), UTC)
        scopes = [(TOTAL, self._budgets.total)]
        if tenant is not None:
            scopes.append((f"tenant/{tenant}", self._budgets.of_tenant(tenant)))
        for scope, limits in scopes:
            for period, limit in ((f"{now:%Y-%m-%d}", limits.day), (f"{now:%Y-%m}", limits.month)):
                if limit is not None:
                    yield Account(period, scope), limit
