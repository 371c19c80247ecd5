"""The folder of heads of the suites, and others made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAKE_HEADS = Path(__file__).parents[1] / "fixtures" / "fake-heads"
"""Answers follow from single words; see make_fake_heads.py beside it."""


def changed(target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy whose `config.json` was changed: `change` is given the part under `heads`."""
    folder = shutil.copytree(FAKE_HEADS, target)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    change(config["heads"])
    path.write_text(json.dumps(config), "utf-8")
    return folder
