"""The run record: what was made from what, by which configuration, on which machine, in how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_tuning.encoder.config import EncoderConfig
from penstock_tuning.training import record


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
    return record.run_record(
        config,
        {
            "digest": card["key"]["data"],
            "sources": card["sources"],
            "train": card["train"],
            "validation": card["validation"],
        },
        parameters=config.shape.parameters,
        tokens=config.tokens,
        learning="pretraining",
        seconds=seconds,
        history=history,
        metrics=metrics,
        machine=machine,
    )
