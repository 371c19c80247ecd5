"""In which order a request's targets are asked. Pure, and the same for a request whenever it is asked.

A canary first, for its share; then the primary targets, balanced; then the fallbacks, in the file's order.
Shares and balance go by a hash of the request id, so that a request that is tried again meets the same targets.
Weighted balance is rendezvous hashing (Thaler and Ravishankar, 1998) with logarithmic weights: the first
choices follow the weights, and so do the second choices where the first is not available.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock_inference.targets.config import Config, Target


@dataclass(frozen=True, slots=True)
class Tier:
    """Targets of one rank, the preferred first."""

    targets: tuple[Target, ...]
    waits: bool = True
    """Whether a request waits for a place here rather than go on to the next tier."""


class Routing:
    """The tiers of each request. `in_flight` says how many calls run at a target now."""

    def __init__(self, config: Config, in_flight: Callable[[Target], int]) -> None:
        self._config = config
        self._in_flight = in_flight

    def tiers(self, request_id: str, tenant: str) -> Sequence[Tier]:
        """What to ask, rank by rank; empty where no target serves the tenant. A canary holds nobody up."""
        canaries = [target for target in self._config.of("canary") if _taken(target, request_id, tenant)]
        primaries = [target for target in self._config.of("primary") if _serves(target, tenant)]
        fallbacks = [target for target in self._config.of("fallback") if _serves(target, tenant)]
        tiers = [
            *(Tier((canary,), waits=False) for canary in canaries[:1]),
            Tier(self._balanced(primaries, request_id)),
            *(Tier((fallback,)) for fallback in fallbacks),
        ]
        return [tier for tier in tiers if tier.targets] if primaries or fallbacks else []

    def shadows(self, request_id: str, tenant: str) -> Sequence[Target]:
        """Where to mirror the request."""
        return [target for target in self._config.of("shadow") if _taken(target, request_id, tenant)]

    def _balanced(self, targets: Sequence[Target], request_id: str) -> tuple[Target, ...]:
        drawn = sorted(targets, key=lambda target: _score(target, request_id), reverse=True)
        if self._config.balance == "least_busy":
            drawn.sort(key=lambda target: (self._in_flight(target) + 1) / target.weight)
        return tuple(drawn)


def draw(request_id: str, name: str) -> float:
    """A number in (0, 1), evenly spread, that follows from the two alone."""
    digest = hashlib.sha256(f"{name}\0{request_id}".encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48


def _score(target: Target, request_id: str) -> float:
    return -target.weight / math.log(draw(request_id, target.name))


def _taken(target: Target, request_id: str, tenant: str) -> bool:
    """Whether a canary or shadow takes part in a request."""
    return tenant in target.tenants or draw(request_id, target.name) < target.share


def _serves(target: Target, tenant: str) -> bool:
    return not target.tenants or tenant in target.tenants
