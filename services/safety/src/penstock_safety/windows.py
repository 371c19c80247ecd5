"""Cuts long text into overlapping windows and brings findings back to the text.

Any span no longer than the overlap lies whole inside at least one window, so nothing of that length is missed
at a border. What a longer span means is the detector's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from penstock_safety.detector import Finding


@dataclass(frozen=True)
class WindowSettings:
    """Both in characters. `overlap` is what two neighbours share."""

    size: int = 8000
    overlap: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.size:
            raise ValueError(f"window overlap {self.overlap} must lie between 0 and the window size {self.size}")


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of the text at index `text` of the batch, from character `start` on."""

    text: int
    start: int
    content: str


def cut(texts: Sequence[str], settings: WindowSettings) -> list[Window]:
    """All windows of all texts, in order. Blank text has none."""
    step = settings.size - settings.overlap
    windows: list[Window] = []
    for index, text in enumerate(texts):
        if not text or text.isspace():
            continue
        for start in range(0, max(1, len(text) - settings.overlap), step):
            windows.append(Window(index, start, text[start : start + settings.size]))
    return windows


def merge(windows: Sequence[Window], found: Sequence[Sequence[Finding]], count: int) -> list[list[Finding]]:
    """Findings with offsets in their text, a list for each of the `count` texts, sorted by place.

    Overlapping findings of one detector and label become one span with the highest score: a match seen in two
    windows counts once.
    """
    by_text: list[list[Finding]] = [[] for _ in range(count)]
    for window, findings in zip(windows, found, strict=True):
        for finding in findings:
            if not 0 <= finding.start <= finding.end <= len(window.content):
                raise ValueError(f"detector {finding.detector} reported a span outside its window")
            moved = replace(finding, start=finding.start + window.start, end=finding.end + window.start)
            by_text[window.text].append(moved)
    return [_join(findings) for findings in by_text]


def _join(findings: Iterable[Finding]) -> list[Finding]:
    joined: list[Finding] = []
    last: dict[tuple[str, str], int] = {}
    for finding in sorted(findings, key=lambda f: (f.start, f.end)):
        key = (finding.detector, finding.label)
        at = last.get(key)
        if at is not None and finding.start < joined[at].end:
            former = joined[at]
            joined[at] = replace(former, end=max(former.end, finding.end), score=max(former.score, finding.score))
            continue
        last[key] = len(joined)
        joined.append(finding)
    return joined
