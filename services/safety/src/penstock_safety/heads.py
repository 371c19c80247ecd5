"""The detector of the heads' model: attacks, harmful requests and abuse, a label for each, by one pass of the encoder.

Labels, thresholds and the windows of a text are those of the folder (`penstock.heads`). It says nothing of personal
data: anonymize asks another head of the same folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.heads.kept import Kept
from penstock.heads.runtime import Heads, Screened
from penstock.heads.spans import word
from penstock_safety.detector import Finding
from penstock_safety.scale import FLAG_SCORE, FLOOR, scaled

SETTING: Final = "PENSTOCK_SAFETY_HEADS_MODEL"
GAP_TOKENS: Final = 8
"""As many tokens that do not reach the threshold leave a place one."""


class HeadsDetector:
    """Implements `Detector`. Scores are on the scale that every model shares (`scale`)."""

    name = "heads"

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Open a folder; raises ConfigurationError that names the setting."""
        self._heads = Heads(folder, threads, needs=("safety",), setting=SETTING)
        self._labels = self._heads.labels
        self._flag = self._heads.flag.astype(np.float64)
        self._block = self._heads.block.astype(np.float64)
        # as the scale has it up to the flag, so that the rest of the scale is worked out for few
        self._least = self._flag * (FLOOR / FLAG_SCORE)
        marks = self._heads.config.safety_tokens
        self._marked = marks.threshold if marks else 1.0
        self._kept = Kept(self._ask)
        self.labels = frozenset(self._labels)
        self.digest = self._heads.digest

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        """One list of findings per window; a window that comes again costs nothing."""
        return [list(self._kept(window)) for window in windows]

    def _ask(self, window: str) -> list[Finding]:
        (rows,) = self._heads.screen([window])
        return [finding for row in rows for finding in self._findings(window, row)]

    def _findings(self, window: str, row: Screened) -> Iterator[Finding]:
        for column in np.flatnonzero(row.probabilities >= self._least).tolist():
            score = scaled(float(row.probabilities[column]), float(self._flag[column]), float(self._block[column]))
            if score < FLOOR:
                continue
            for first, last in _runs(row.tokens[:, column] >= self._marked):
                start, end = word(window, row.offsets[first][0], row.offsets[last][1])
                yield Finding(self._labels[column], score, start, end, self.name)


def _runs(marked: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last token of each place that is marked; where none is, of all of them."""
    places = np.flatnonzero(marked).tolist()
    if not places:
        return [(0, len(marked) - 1)]
    runs = [(places[0], places[0])]
    for place in places[1:]:
        first, last = runs[-1]
        if place - last - 1 <= GAP_TOKENS:
            runs[-1] = (first, place)
        else:
            runs.append((place, place))
    return runs
