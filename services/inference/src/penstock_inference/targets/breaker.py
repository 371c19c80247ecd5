"""A circuit breaker: a target that keeps failing is left alone for a while, then tried with one call at a time.

    closed ──failures within the window──> open ──time──> half-open ──successes──> closed
                                             ^───────a failure───────┘

M. Nygard, "Release It!" (2007). Pure: the clock comes in from outside, in seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from penstock_inference.targets.config import BreakerFigures

State = Literal["closed", "open", "half_open"]


class Breaker:
    """One target's. Each call that `begin` lets through ends in exactly one of `succeed`, `fail` and `forget`."""

    def __init__(self, figures: BreakerFigures) -> None:
        self._figures = figures
        self._recent: deque[bool] = deque(maxlen=figures.window)
        self._state: State = "closed"
        self._until = 0.0
        self._open_s = figures.open_s
        self._trying = False
        self._successes = 0

    @property
    def state(self) -> State:
        """As of the last call; `half_open` once it has let a trial through."""
        return self._state

    def allows(self, now: float) -> bool:
        """Whether a call may begin now."""
        match self._state:
            case "closed":
                return True
            case "open":
                return now >= self._until
            case "half_open":
                return not self._trying

    def wait_s(self, now: float) -> float:
        """How long to wait before asking again; while a trial is under way, a guess."""
        match self._state:
            case "open":
                return max(0.0, self._until - now)
            case "half_open":
                return self._open_s if self._trying else 0.0
            case "closed":
                return 0.0

    def begin(self) -> bool:
        """A call begins that was allowed; whether it is a trial."""
        if self._state == "open":
            self._state, self._successes = "half_open", 0
        self._trying = self._state == "half_open"
        return self._trying

    def succeed(self, trial: bool) -> None:
        """The target works."""
        if not trial:
            self._recent.append(True)
            return
        self._trying = False
        if self._state != "half_open":
            return
        self._successes += 1
        if self._successes >= self._figures.successes:
            self._state, self._open_s = "closed", self._figures.open_s
            self._recent.clear()

    def fail(self, trial: bool, now: float) -> None:
        """The target does not work."""
        if trial:
            self._trying = False
            self._open_s = min(2 * self._open_s, self._figures.open_max_s)
            self._open(now)
            return
        self._recent.append(False)
        # calls from before it opened say nothing new
        if self._state == "closed" and self._recent.count(False) >= self._figures.failures:
            self._open(now)

    def forget(self, trial: bool) -> None:
        """The call was given up: it says nothing of the target."""
        if trial:
            self._trying = False

    def _open(self, now: float) -> None:
        self._state, self._until = "open", now + self._open_s
