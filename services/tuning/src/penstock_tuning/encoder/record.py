"""The run record: what was made from what, by which configuration, on which machine, in how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_tuning.encoder.config import EncoderConfig

RECORD = "run.json"


def run_record(
    config: EncoderConfig,
    card: Mapping[str, Any],
    *,
    seconds: Mapping[str, float],
    history: list[dict[str, float]],
    metrics: Mapping[str, float],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a finished run.

    Args:
        config: the recipe.
        card: of the prepared data: its key, digests of the sources, tokens.
        seconds: of each stage; those of pretraining are added up over its pieces.
        history: losses by step.
        metrics: of the exported model.
        machine: `hardware()` and what the run used of it.
    """
    return {
        "name": config.name,
        "configuration": config.model_dump(mode="json"),
        "configuration_digest": config.digest(),
        "data": {
            "digest": card["key"]["data"],
            "sources": card["sources"],
            "train": card["train"],
            "validation": card["validation"],
        },
        "parameters": config.shape.parameters,
        "steps": config.steps,
        "tokens": config.tokens,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "tokens_per_second": round(config.tokens / seconds["pretraining"]) if seconds["pretraining"] else None,
        "metrics": dict(metrics),
        "history": history,
        "hardware": dict(machine),
    }
