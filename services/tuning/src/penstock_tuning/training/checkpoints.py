"""Checkpoints: one file, replaced whole. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_tuning.errors import CheckpointMissingError

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a killed run leaves the old or the new one, never half of one."""
    import torch

    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(work: Path) -> dict[str, Any]:
    """The state of the newest checkpoint, on the CPU: `weights`, `optimizers`, `step`, `seconds`, `history`.

    Raises:
        CheckpointMissingError: nothing was trained in this work folder.
    """
    import torch

    if not (work / CHECKPOINT).exists():
        raise CheckpointMissingError(f"no checkpoint in {work}: training has not begun")
    state: dict[str, Any] = torch.load(work / CHECKPOINT, map_location="cpu", weights_only=True)
    return state
