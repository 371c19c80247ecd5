"""The places at the targets: who may call now, who waits for a place, and what each call says of its target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from penstock.contracts.errors import Overloaded, PenstockError, RateLimited
from penstock_inference.targets.breaker import Breaker
from penstock_inference.targets.config import Config, Target
from penstock_inference.targets.faults import blames_target
from penstock_inference.targets.meters import Meters
from penstock_inference.targets.routing import Tier

_log = structlog.get_logger()

RECHECK_S = 1.0
"""How often one that waits looks whether time alone has changed something."""


@dataclass(slots=True)
class _Place:
    target: Target
    breaker: Breaker
    in_flight: int = 0
    resting_until: float = 0.0
    """What the server asked for by Retry-After."""

    @property
    def full(self) -> bool:
        return self.in_flight >= self.target.max_in_flight


class Turn:
    """One call's place. It is given back by exactly one of `succeed`, `fail` and `forget`; later ones do nothing."""

    def __init__(self, pool: Pool, place: _Place, trial: bool) -> None:
        self._pool = pool
        self._place: _Place | None = place
        self._trial = trial
        self.target = place.target

    def succeed(self) -> None:
        """The target works."""
        if (place := self._give_back()) is not None:
            place.breaker.succeed(self._trial)
            self._pool.changed(place)

    def fail(self, error: PenstockError) -> None:
        """The call failed; what that says of the target, the error tells."""
        if (place := self._give_back()) is None:
            return
        now = self._pool.now()
        if isinstance(error, RateLimited | Overloaded) and error.retry_after_s:
            rests_s = min(error.retry_after_s, self.target.breaker.open_max_s)
            place.resting_until = max(place.resting_until, now + rests_s)
        before = place.breaker.state
        if blames_target(error):
            place.breaker.fail(self._trial, now)
        elif error.retriable:
            place.breaker.forget(self._trial)
        else:
            place.breaker.succeed(self._trial)  # it works well enough to refuse
        if place.breaker.state == "open" and before != "open":
            _log.warning("inference.target.opened", target=self.target.name, code=error.code)
        self._pool.changed(place)

    def forget(self) -> None:
        """The call was given up: it says nothing of the target."""
        if (place := self._give_back()) is not None:
            place.breaker.forget(self._trial)
            self._pool.changed(place)

    def _give_back(self) -> _Place | None:
        place, self._place = self._place, None
        if place is not None:
            place.in_flight -= 1
        return place


class Pool:
    """All targets' places. Used in one event loop; `now` gives seconds of any clock."""

    def __init__(self, config: Config, meters: Meters, now: Callable[[], float]) -> None:
        self.now = now
        self._meters = meters
        self._places = {target.name: _Place(target, Breaker(target.breaker)) for target in config.targets}
        self._change = asyncio.Event()
        for place in self._places.values():
            self._show(place)

    def in_flight(self, target: Target) -> int:
        """Calls under way at a target."""
        return self._places[target.name].in_flight

    async def acquire(self, tiers: Sequence[Tier], tried: Collection[str]) -> Turn:
        """A place at the first target that takes calls and is not among `tried`; waits while all of a tier are full.

        Raises Overloaded where none takes calls now, saying when one will be tried again.
        """
        while True:
            waits = False
            for tier in tiers:
                usable = [place for place in self._of(tier) if self._takes(place, tried)]
                if (free := next((place for place in usable if not place.full), None)) is not None:
                    return self._begin(free)
                if usable and tier.waits:
                    waits = True
                    break
            if not waits:
                raise self._none_left(tiers, tried)
            with suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_S):
                    await self._change.wait()

    def at_once(self, target: Target) -> Turn | None:
        """A place at one target, None where it has none or takes no calls."""
        place = self._places[target.name]
        return self._begin(place) if self._takes(place, ()) and not place.full else None

    def changed(self, place: _Place) -> None:
        """A place was given back: those that wait look again."""
        self._show(place)
        self._change.set()
        self._change = asyncio.Event()

    def _of(self, tier: Tier) -> list[_Place]:
        return [self._places[target.name] for target in tier.targets]

    def _takes(self, place: _Place, tried: Collection[str]) -> bool:
        now = self.now()
        return place.target.name not in tried and place.resting_until <= now and place.breaker.allows(now)

    def _begin(self, place: _Place) -> Turn:
        trial = place.breaker.begin()
        place.in_flight += 1
        self._show(place)
        return Turn(self, place, trial)

    def _none_left(self, tiers: Sequence[Tier], tried: Collection[str]) -> Overloaded:
        now = self.now()
        places = [place for tier in tiers for place in self._of(tier) if place.target.name not in tried]
        waits = [max(place.resting_until - now, place.breaker.wait_s(now)) for place in places]
        return Overloaded(
            "no target takes calls now: each has failed, is left alone after failures, or asked for a pause",
            retry_after_s=min((wait for wait in waits if wait > 0), default=None),
        )

    def _show(self, place: _Place) -> None:
        self._meters.show(place.target, place.in_flight, place.breaker.state)
