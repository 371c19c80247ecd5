"""Small data folders and manifests for the tests of the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def entry(path: str, *files: str, **changes: Any) -> dict[str, Any]:
    """A manifest entry of a set of lines for the task `safety`."""
    return {
        "path": path,
        "files": list(files),
        "origin": "someone/something",
        "licence": "MIT",
        "digest": "unset",
        "tasks": ["safety"],
        "split": "train",
        "reader": "lines",
        "kind": "ordinary",
        **changes,
    }


def write_manifest(folder: Path, **entries: dict[str, Any]) -> Path:
    """Write the entries as a manifest and return its path."""
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "sources": entries}, sort_keys=False, allow_unicode=True), "utf-8")
    return path
