"""Metrics of calls to targets, named by the GenAI semantic conventions (dots as underscores, unit as suffix)."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from penstock_inference.targets.breaker import State
from penstock_inference.targets.config import Target

_TARGET: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "server_address", "target")
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(4**power for power in range(14))
"""Both bounds as the conventions advise."""
_STATES: Final[dict[State, int]] = {"closed": 0, "half_open": 1, "open": 2}


class Meters:
    """All targets' metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Calls, from sending to the end of the answer or the failure.",
            [*_TARGET, "error_type"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.first_chunk = Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "From sending a call to the first text of its answer.",
            _TARGET,
            buckets=_SECONDS,
            registry=registry,
        )
        self.tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a call, input and output.",
            [*_TARGET, "gen_ai_token_type"],
            buckets=_TOKENS,
            registry=registry,
        )
        self.cost = Counter("penstock_target_cost", "What calls have cost, by price.", ["target"], registry=registry)
        self.in_flight = Gauge("penstock_target_in_flight", "Calls under way.", ["target"], registry=registry)
        self.breaker = Gauge("penstock_target_breaker", "0 closed, 1 half open, 2 open.", ["target"], registry=registry)
        self.failovers = Counter(
            "penstock_target_failovers",
            "Calls that failed and were followed by another target.",
            ["target", "code"],
            registry=registry,
        )
        self.refused = Counter(
            "penstock_budget_refusals", "Calls not made since a budget had too little left.", registry=registry
        )

    def show(self, target: Target, in_flight: int, state: State) -> None:
        """A call began or ended."""
        self.in_flight.labels(target.name).set(in_flight)
        self.breaker.labels(target.name).set(_STATES[state])

    def first(self, target: Target, seconds: float) -> None:
        """The first text has come."""
        self.first_chunk.labels(*_labels(target)).observe(seconds)

    def ended(self, target: Target, seconds: float, error_type: str = "") -> None:
        """A call has ended; `error_type` is an error code, empty where it was answered."""
        self.duration.labels(*_labels(target), error_type).observe(seconds)

    def used(self, target: Target, input_tokens: int, output_tokens: int, cost: float) -> None:
        """What a call took, whether it was answered or not."""
        self.tokens.labels(*_labels(target), "input").observe(input_tokens)
        self.tokens.labels(*_labels(target), "output").observe(output_tokens)
        self.cost.labels(target.name).inc(cost)


def _labels(target: Target) -> tuple[str, ...]:
    return ("chat", target.provider, target.model, target.host, target.name)
