"""How much each tenant may send into the interactive lane: token buckets of requests and of tokens.

Pure but for the buckets it keeps in memory, one set for each process. The clock comes from outside: it is the
time at which a request was sent, so that what waited through an outage counts as it was sent, not as a flood.
What becomes of a request over the rate is the stage's to say.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_TENANTS = 10_000
"""Buckets kept; the least recently used go first, and a tenant that comes back begins with a full one."""

ROUNDING = 1e-6


class Rate(BaseModel):
    """What a tenant may send in a second; None is no limit. Tokens are those of the prompt and those asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Annotated[float, Field(gt=0)] | None = None
    tokens: Annotated[float, Field(gt=0)] | None = None


@dataclass(slots=True)
class _Bucket:
    at_ms: int
    requests: float
    tokens: float


class Rates:
    """The rates of all tenants. `burst_s` seconds' worth may be sent at once after a pause."""

    def __init__(
        self, default: Rate, tenants: Mapping[str, Rate], *, burst_s: float, max_tenants: int = MAX_TENANTS
    ) -> None:
        self._default = default
        self._tenants = dict(tenants)
        self._burst_s = burst_s
        self._max_tenants = max_tenants
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, tenant: str, tokens: int, at_ms: int) -> bool:
        """Whether a request of so many tokens, sent at `at_ms`, is within its tenant's rate; if so it is counted.

        A bucket need only hold something: a request larger than the burst is let through, and paid back after.
        """
        rate = self._tenants.get(tenant, self._default)
        if rate.requests is None and rate.tokens is None:
            return True
        bucket = self._filled(tenant, rate, at_ms)
        if (rate.requests is not None and bucket.requests < 1 - ROUNDING) or (
            rate.tokens is not None and bucket.tokens <= 0
        ):
            return False
        bucket.requests -= 1
        bucket.tokens -= tokens
        return True

    def _filled(self, tenant: str, rate: Rate, at_ms: int) -> _Bucket:
        most_requests = max(1.0, (rate.requests or 0) * self._burst_s)
        most_tokens = (rate.tokens or 0) * self._burst_s
        bucket = self._buckets.get(tenant)
        if bucket is None:
            bucket = self._buckets[tenant] = _Bucket(at_ms, most_requests, most_tokens)
            while len(self._buckets) > self._max_tenants:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(tenant)
        passed_s = max(0, at_ms - bucket.at_ms) / 1000
        bucket.at_ms = max(bucket.at_ms, at_ms)
        bucket.requests = min(most_requests, bucket.requests + passed_s * (rate.requests or 0))
        bucket.tokens = min(most_tokens, bucket.tokens + passed_s * (rate.tokens or 0))
        return bucket
