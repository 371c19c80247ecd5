"""Tokens that have a label to places in the text. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled piece of a text: offsets in code points, the end exclusive."""

    start: int
    end: int
    label: str
    score: float = field(default=1.0, compare=False)
    """The highest probability of its tokens, where a model found it."""


def spans_of(
    text: str,
    offsets: Sequence[tuple[int, int]],
    probabilities: Probabilities,
    labels: Sequence[str],
    limits: NDArray[np.float32],
) -> list[Span]:
    """Neighbouring tokens of one label as a span, widened to whole words.

    Args:
        text: the text.
        offsets: of its tokens, in code points.
        probabilities: `[tokens, labels]`.
        labels: the names of the columns.
        limits: `[labels]`: from which probability on a token has a label; of several the most probable.
    """
    reached = np.where(probabilities >= limits, probabilities, 0.0)
    spans: list[Span] = []
    for token in np.flatnonzero(reached.any(axis=1)).tolist():
        (start, end), row = offsets[token], reached[token]
        if start == end:
            continue
        best = int(row.argmax())
        label, score = labels[best], float(row[best])
        first, last = word(text, start, end)
        between = text[spans[-1].end : first] if spans else "-"
        if spans and (spans[-1].end > first or (spans[-1].label == label and not between.strip())):
            before = spans[-1]
            surest = max(score, before.score) if before.label == label else before.score
            spans[-1] = Span(before.start, max(last, before.end), before.label, surest)
        else:
            spans.append(Span(first, last, label, score))
    return spans


def word(text: str, start: int, end: int) -> tuple[int, int]:
    """A place that is not empty, widened to the letters and digits around it, if it ends in the middle of a word."""
    while start > 0 and text[start].isalnum() and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end
