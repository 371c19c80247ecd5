"""`--register`: a finished model folder into the registry that `penstock models` uses."""

from __future__ import annotations

import os
from pathlib import Path


def register_folder(model: Path, name: str) -> str:
    """Add a finished folder to the registry of PENSTOCK_MODELS_DIR; its reference. Raises ModelError."""
    from penstock.cli.models_registry import MODELS_DIR_VARIABLE, byte_bar, open_registry
    from penstock.models.adding import How, add_folder

    given = os.environ.get(MODELS_DIR_VARIABLE)
    registry = open_registry(Path(given) if given else None)
    return add_folder(registry, model, How(name=name), byte_bar).added.entry.reference
