"""The run record: what was made from what, by which configuration, on which machine, in how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

RECORD = "run.json"


class Recipe(Protocol):
    """What a record needs of a configuration."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        ...

    def digest(self) -> str:
        """Of what decides the weights."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All of it."""
        ...


def run_record(
    config: Recipe,
    data: Mapping[str, Any],
    *,
    parameters: int,
    tokens: int,
    learning: str,
    seconds: Mapping[str, float],
    history: list[dict[str, float]],
    metrics: Mapping[str, float],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a finished run, to which a recipe adds what it alone has.

    Args:
        config: the recipe.
        data: digests of the sources, and what there is of each.
        parameters: of the network.
        tokens: read by all steps.
        learning: the stage of `seconds` in which they were.
        seconds: of each stage; those of learning are added up over its pieces.
        history: losses by step.
        metrics: of the finished folder.
        machine: `hardware()` and what the run used of it.
    """
    return {
        "name": config.name,
        "configuration": config.model_dump(mode="json"),
        "configuration_digest": config.digest(),
        "data": dict(data),
        "parameters": parameters,
        "steps": config.steps,
        "tokens": tokens,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "tokens_per_second": round(tokens / seconds[learning]) if seconds[learning] else None,
        "metrics": dict(metrics),
        "history": history,
        "hardware": dict(machine),
    }


def with_entry(record: Mapping[str, Any], name: str, value: Any, *, before: str) -> dict[str, Any]:
    """A record with one more entry, in front of that named `before`. Raises ValueError where there is none."""
    entries = list(record.items())
    place = list(record).index(before)
    return dict([*entries[:place], (name, value), *entries[place:]])
