"""The encoder of the suites, and one that is told its vectors."""

from __future__ import annotations

from pathlib import Path

TINY_ENCODER = Path(__file__).parents[1] / "fixtures" / "tiny-encoder"
