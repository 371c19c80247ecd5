"""What finished folders have in common: how a card begins, and how a folder takes the place of the one before."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from penstock_tuning.data.example import LANGUAGES


def front_matter(record: Mapping[str, Any], origins: Sequence[str], *, task: str, measured_on: str, kind: str) -> str:
    """The front matter of a card as on the Hugging Face hub, with the lines around it.

    Args:
        record: of the run.
        origins: of the data.
        task: the hub's name of what the model does.
        measured_on: what the record's metrics are of, and
        kind: the name of its kind.
    """
    front = {
        "license": "apache-2.0",
        "language": list(LANGUAGES),
        "datasets": list(origins),
        "model-index": [
            {
                "name": record["name"],
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"name": measured_on, "type": kind},
                        "metrics": [{"type": name, "value": value} for name, value in record["metrics"].items()],
                    }
                ],
            }
        ],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)}---"


def put_in_place(new: Path, target: Path) -> None:
    """Swap a finished folder in by renames; both must lie on one file system."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
