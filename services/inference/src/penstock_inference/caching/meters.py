"""Metrics of the answers kept."""

from __future__ import annotations

from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

from penstock_inference.caching.answers import Answers

Kind = Literal["exact", "semantic", "miss", "bypass"]
_STAGE: Final = "inference"


class Meters:
    """One process's, in its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "penstock_answers_asked",
            "Requests by how the kept answers served them.",
            ["stage", "kind"],
            registry=registry,
        )
        self.kept = Gauge("penstock_answers_kept", "Answers kept.", ["stage"], registry=registry)
        self.bytes = Gauge("penstock_answers_kept_bytes", "What they take, about.", ["stage"], registry=registry)
        for kind in ("exact", "semantic", "miss", "bypass"):
            self.requests.labels(_STAGE, kind)

    def watch(self, answers: Answers) -> None:
        """Show what is kept whenever somebody looks."""
        self.kept.labels(_STAGE).set_function(lambda: len(answers))
        self.bytes.labels(_STAGE).set_function(lambda: answers.bytes)

    def asked(self, kind: Kind) -> None:
        """Count a request."""
        self.requests.labels(_STAGE, kind).inc()
