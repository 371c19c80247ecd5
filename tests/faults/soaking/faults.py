"""What is done to the services and the broker, and when: planned from a seed, then done one after another.

A plan has two halves. In each, some services are killed and restarted, and the others are only paused: so
every service has one process that lives for half of the run, long enough to show what grows slowly.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Literal

from tests.support.stack import SERVICES, Stack

from penstock.local.kafka import LocalKafka

What = Literal["kill", "terminate", "pause", "broker-kill"]

RESTARTED = (("preprocess", "safety", "postprocess"), ("anonymize", "inference"))
"""In each half, the services that are killed and terminated."""
SHARES: dict[What, float] = {"kill": 0.4, "terminate": 0.2, "pause": 0.4}
DOWN_S = (0.0, 3.0)
PAUSED_S = (0.5, 5.0)
LONG_PAUSE_S = (15.0, 28.0)
"""For services that may end by it: the broker aborts their transactions in between."""
TRANSACTION_TIMEOUT_S = 20
"""Longer than the one broker takes to come back: Kafka may leave a transaction hanging whose time is up by then."""
LONG_PAUSES = 0.2
GRACE_S = 20.0
BROKER_AT = (0.1, 0.52)
"""Where in the run the broker is killed: early in each half, since a service may end by it."""
CALM_S = 10.0
"""The last seconds of a run, of a short one its last quarter, have no faults."""


@dataclass(frozen=True)
class Fault:
    """One thing done: at so many seconds of the run, for so many seconds."""

    at_s: float
    what: What
    service: str
    seconds: float


def plan(seconds: float, seed: int, *, every_s: float, broker: bool) -> list[Fault]:
    """Faults for a run, about every `every_s`, services in turn; the same for the same seed."""
    chosen = random.Random(f"faults {seed}")
    faults = []
    turns: dict[tuple[int, bool], list[str]] = {}

    def next_of(half: int, whats: What) -> str:
        """Every service of the half in turn, in another order each round; pauses come to all."""
        restart = whats != "pause"
        left = turns.setdefault((half, restart), [])
        if not left:
            left += chosen.sample(
                RESTARTED[half] if restart else SERVICES, len(RESTARTED[half] if restart else SERVICES)
            )
        return left.pop()

    at = chosen.uniform(0.2, 1.0) * every_s
    while at < seconds - min(CALM_S, seconds / 4):
        half = int(at >= seconds / 2)
        (what,) = chosen.choices(list(SHARES), weights=list(SHARES.values()))
        service = next_of(half, what)
        long = what == "pause" and service in RESTARTED[half] and chosen.random() < LONG_PAUSES
        span = LONG_PAUSE_S if long else PAUSED_S if what == "pause" else DOWN_S
        faults.append(Fault(round(at, 1), what, service, round(chosen.uniform(*span), 2)))
        at += chosen.uniform(0.5, 1.5) * every_s
    if broker:
        faults += [Fault(share * seconds, "broker-kill", "broker", 1.0) for share in BROKER_AT]
    return sorted(faults, key=lambda fault: fault.at_s)


class Culprit:
    """Does to one stack what a plan says."""

    def __init__(self, stack: Stack, broker: LocalKafka | None) -> None:
        self._stack = stack
        self._broker = broker

    def do(self, fault: Fault) -> bool:
        """Blocks until it is over; whether it went as it should: SIGTERM was enough, or there was what to halt.

        A service that was ended is started, not waited for.
        """
        if fault.what == "pause":
            halted = self._stack.freeze(fault.service)
            time.sleep(fault.seconds)
            self._stack.thaw(fault.service)
            return halted
        if fault.what in ("kill", "terminate"):
            enough = True
            if fault.what == "kill":
                self._stack.kill(fault.service)
            else:
                enough = self._stack.terminate(fault.service, GRACE_S)
            time.sleep(fault.seconds)
            self._stack.launch(fault.service)
            return enough
        assert self._broker is not None, "a plan with the broker in it needs one that can be restarted"
        self._broker.kill()
        time.sleep(fault.seconds)
        self._broker.start()
        return True

    def revive(self) -> list[str]:
        """Start again what has ended by itself; which that was, with the end of its log."""
        ended = [name for name in SERVICES if not self._stack.alive(name)]
        tails = [self._stack.tails([name]) for name in ended]
        for name in ended:
            self._stack.launch(name)
        return [f"{name} {tail}" for name, tail in zip(ended, tails, strict=True)]
