"""Places at the targets: who gets one, who waits, who rests; by a clock of the test's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.generation import Clock
from tests.support.targets import config, target

from penstock.contracts.errors import BackendUnavailable, Overloaded, PenstockError, RateLimited
from penstock_inference.targets import pool
from penstock_inference.targets.meters import Meters
from penstock_inference.targets.pool import Pool
from penstock_inference.targets.routing import Tier

FRAIL = {"window": 1, "failures": 1, "open_s": 10, "successes": 1}


class Places:
    """A pool of targets `names`, each of one place."""

    def __init__(self, *names: str, **more: Any) -> None:
        self.clock = Clock()
        made = config(*(target(name, max_in_flight=1, breaker=FRAIL, **more) for name in names))
        self.pool = Pool(made, Meters(CollectorRegistry()), self.clock)
        self._targets = {one.name: one for one in made.targets}

    def tier(self, *names: str, waits: bool = True) -> Tier:
        return Tier(tuple(self._targets[name] for name in names), waits)

    async def got(self, *tiers: Tier, tried: tuple[str, ...] = ()) -> str:
        """The target of a place that is kept."""
        return (await self.pool.acquire(tiers, tried)).target.name


def test_a_full_target_is_passed_over_within_its_tier_and_waited_for_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "RECHECK_S", 3_600)

    async def play() -> None:
        places = Places("a", "b", "spare")
        both, spare = places.tier("a", "b"), places.tier("spare")
        first = await places.pool.acquire([both, spare], ())
        assert first.target.name == "a"
        assert await places.got(both, spare) == "b"
        waiting = asyncio.ensure_future(places.got(both, spare))
        await asyncio.sleep(0)
        assert not waiting.done()
        first.succeed()
        assert await asyncio.wait_for(waiting, 60) == "a"

    asyncio.run(play())


def test_a_full_canary_holds_nobody_up() -> None:
    async def play() -> None:
        places = Places("next", "a")
        tiers = [places.tier("next", waits=False), places.tier("a")]
        assert await places.got(*tiers) == "next"
        assert await places.got(*tiers) == "a"

    asyncio.run(play())


def test_a_target_that_failed_is_left_alone_then_tried_once() -> None:
    async def play() -> None:
        places = Places("a")
        tier = places.tier("a")
        (await places.pool.acquire([tier], ())).fail(BackendUnavailable("gone"))
        places.clock.now += 4
        with pytest.raises(Overloaded) as raised:
            await places.got(tier)
        assert raised.value.retry_after_s == pytest.approx(6)
        places.clock.now += 6
        trial = await places.pool.acquire([tier], ())
        with pytest.raises(Overloaded) as raised:
            await places.got(tier)
        assert raised.value.retry_after_s == 10, "a trial is under way"
        trial.succeed()
        assert await places.got(tier) == "a"

    asyncio.run(play())


@pytest.mark.parametrize(
    ("error", "rests_s"),
    [
        (RateLimited("less", retry_after_s=30), 30),
        (RateLimited("less", retry_after_s=1e6), 300),
        (RateLimited("less"), 0),
    ],
)
def test_a_target_that_asks_for_patience_rests_and_its_breaker_stays_closed(
    error: PenstockError, rests_s: float
) -> None:
    async def play() -> None:
        places = Places("a")
        tier = places.tier("a")
        (await places.pool.acquire([tier], ())).fail(error)
        if rests_s:
            with pytest.raises(Overloaded) as raised:
                await places.got(tier)
            assert raised.value.retry_after_s == rests_s
        places.clock.now += rests_s
        assert await places.got(tier) == "a"

    asyncio.run(play())


def test_of_several_that_rest_the_first_to_come_back_counts() -> None:
    async def play() -> None:
        places = Places("a", "b")
        tier = places.tier("a", "b")
        for seconds in (30, 20):
            (await places.pool.acquire([tier], ())).fail(RateLimited("less", retry_after_s=seconds))
        with pytest.raises(Overloaded) as raised:
            await places.got(tier)
        assert raised.value.retry_after_s == 20

    asyncio.run(play())


def test_each_target_is_asked_once() -> None:
    async def play() -> None:
        places = Places("a", "spare")
        tiers = [places.tier("a"), places.tier("spare")]
        assert await places.got(*tiers, tried=("a",)) == "spare"
        with pytest.raises(Overloaded) as raised:
            await places.got(*tiers, tried=("a", "spare"))
        assert raised.value.retry_after_s is None

    asyncio.run(play())


def test_a_place_is_given_back_once() -> None:
    async def play() -> None:
        places = Places("a")
        turn = await places.pool.acquire([places.tier("a")], ())
        turn.succeed()
        turn.forget()
        turn.fail(BackendUnavailable("late"))
        assert places.pool.in_flight(turn.target) == 0
        assert await places.got(places.tier("a")) == "a"
        assert places.pool.at_once(turn.target) is None

    asyncio.run(play())
