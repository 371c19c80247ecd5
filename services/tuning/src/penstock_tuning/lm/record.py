"""The run record: what was made from what, by which configuration, on which machine, in how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_tuning.lm.config import LmConfig
from penstock_tuning.training import record

_KINDS = ("text", "conversations", "generated", "held_out_conversations")


def run_record(
    config: LmConfig,
    card: Mapping[str, Any],
    *,
    seconds: Mapping[str, float],
    history: list[dict[str, float]],
    metrics: Mapping[str, float],
    measured: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a finished run.

    Args:
        config: the recipe.
        card: of the prepared data: its key, digests of the sources, tokens.
        seconds: of each stage; those of training are added up over its pieces.
        history: losses by step.
        metrics: of the exported folder, over everything.
        measured: the same by group of text and by kind of task.
        machine: `hardware()` and what the run used of it.
    """
    common = record.run_record(
        config,
        {"digest": card["key"]["data"], "sources": card["sources"], **{kind: card[kind] for kind in _KINDS}},
        parameters=config.shape.parameters,
        tokens=config.steps * config.batch_tokens,
        learning="training",
        seconds=seconds,
        history=history,
        metrics=metrics,
        machine=machine,
    )
    return record.with_entry(common, "measured", dict(measured), before="history")
