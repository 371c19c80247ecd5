"""How many records may run at a backend at once: additive increase, multiplicative decrease.

A backend that is given more than it can hold answers later, not more. The limit grows by about one for
each round of answers whose first token came in time, and shrinks by a third when one came late or the
backend refused (Chiu and Jain, 1989). Pure: the clock comes in from outside.
"""

from __future__ import annotations

DECREASE = 2 / 3
SMOOTHING = 0.2
"""Weight of the newest time to first token in the mean that is compared."""


class Admission:
    """The limit on records running at once."""

    def __init__(self, *, lowest: int, highest: int, target_s: float) -> None:
        self._lowest = lowest
        self._highest = highest
        self._target_s = target_s
        self._limit = float(highest)
        self._mean_s: float | None = None
        self._decided = float("-inf")

    @property
    def limit(self) -> int:
        """Most records that may run now."""
        return int(self._limit)

    @property
    def mean_s(self) -> float | None:
        """Smoothed time to first token, seconds; None before the first."""
        return self._mean_s

    def first_output(self, seconds: float, *, running: int, now: float) -> None:
        """An answer began `seconds` after its start, with so many running; `now` in seconds of any clock."""
        mean = seconds if self._mean_s is None else self._mean_s + SMOOTHING * (seconds - self._mean_s)
        self._mean_s = mean
        if mean > self._target_s:
            self._decrease(now, seconds)
        elif running >= self.limit:  # an unused limit says nothing about a higher one
            self._limit = min(self._highest, self._limit + 1 / self._limit)

    def refused(self, now: float) -> None:
        """The backend said that it has too much."""
        self._decrease(now, self._mean_s or 0.0)

    def _decrease(self, now: float, seconds: float) -> None:
        # records started before the last decrease say nothing about it: at most once in the time they take
        if now - self._decided < seconds:
            return
        self._decided = now
        self._limit = max(self._lowest, self._limit * DECREASE)
        self._mean_s = None
