"""When a record that failed is tried again, and when no longer: a pure function of the error and the clock.

An answer is one of three: wait in the process, go to the retry topic until a given time, or give up.
The first attempts are spaced by exponential backoff with full jitter (uniform from 0 to the bound that
doubles; M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). What the other side
asked for (Retry-After) comes first, and the jitter on top, so that not all come back at one moment.
Who waits, publishes and counts is the caller's business.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from penstock.contracts.errors import Expired, PenstockError, PolicyName, RetriableError
from penstock.runtime.settings import ServiceSettings

Draw = Callable[[float, float], float]
"""A number between two, as `random.uniform`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The figures of one class of errors."""

    attempts: int
    """Most in all, over restarts."""
    backoff_ms: int
    """Longest wait before the second attempt; doubles with each."""
    backoff_max_ms: int
    """Where doubling ends."""
    in_place_max_ms: int
    """A longer wait goes through the retry topic."""
    retry_after_max_ms: int
    """Most that is granted of what the other side asks for."""

    def wait_ms(self, attempts: int, retry_after_s: float | None, draw: Draw = random.uniform) -> int:
        """How long to wait after so many attempts."""
        # beyond 2^32 the bound is the maximum anyway
        longest = min(self.backoff_max_ms, self.backoff_ms << min(attempts - 1, 32))
        asked_ms = 0.0 if retry_after_s is None or math.isnan(retry_after_s) else max(0.0, retry_after_s * 1000)
        return math.ceil(min(asked_ms, self.retry_after_max_ms) + draw(0, longest))


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again in this process after so many milliseconds."""

    ms: int


@dataclass(frozen=True, slots=True)
class Delay:
    """Send the record to the retry topic, due at this time (milliseconds since the epoch)."""

    not_before_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt; `error` is what the record ends in."""

    error: PenstockError
    exhausted: bool = False
    """Whether it was tried as often as allowed."""


Decision = Wait | Delay | GiveUp


class Policies:
    """The policy of each class of errors."""

    def __init__(self, policies: Mapping[PolicyName, Policy]) -> None:
        self._policies = dict(policies)

    @classmethod
    def of(cls, settings: ServiceSettings) -> Policies:
        """From a service's settings: PENSTOCK_RETRY_*, and for a class what PENSTOCK_RETRY_POLICIES says of it."""
        common = {
            "attempts": settings.retry_attempts,
            "backoff_ms": settings.retry_backoff_ms,
            "backoff_max_ms": settings.retry_backoff_max_ms,
            "in_place_max_ms": settings.retry_in_place_max_ms,
            "retry_after_max_ms": settings.retry_after_max_ms,
        }
        own = {name: figures.model_dump(exclude_none=True) for name, figures in settings.retry_policies.items()}
        return cls({name: Policy(**common | own.get(name, {})) for name in get_args(PolicyName)})

    def of_class(self, name: PolicyName) -> Policy:
        """The policy of one class."""
        return self._policies[name]

    def decide(
        self,
        error: PenstockError,
        *,
        attempts: int,
        now_ms: int,
        deadline_ms: int | None,
        delayable: bool = True,
        draw: Draw = random.uniform,
    ) -> Decision:
        """What follows an error that was met in attempt number `attempts` (1 is the first).

        No attempt is planned at or beyond the deadline: the request expires now, its error named. A record
        that cannot go through the retry topic (`delayable`) waits in the process however long it takes.
        """
        if not isinstance(error, RetriableError):
            return GiveUp(error)
        policy = self._policies[error.policy]
        if attempts >= policy.attempts:
            return GiveUp(error, exhausted=True)
        wait_ms = policy.wait_ms(attempts, error.retry_after_s, draw)
        if deadline_ms is not None and now_ms + wait_ms >= deadline_ms:
            return GiveUp(late(error, attempts=attempts, deadline_ms=deadline_ms))
        if wait_ms <= policy.in_place_max_ms or not delayable:
            return Wait(wait_ms)
        return Delay(now_ms + wait_ms)


def late(error: PenstockError, *, attempts: int, deadline_ms: int) -> Expired:
    """The end of a request whose deadline comes before its next attempt."""
    expired = Expired(
        f"the deadline comes before attempt {attempts + 1}; the last error was {error.code}; "
        "allow more time, or send the request again later",
        field="header deadline",
        limit=deadline_ms,
    )
    return expired if error.context is None else expired.about(error.context)
