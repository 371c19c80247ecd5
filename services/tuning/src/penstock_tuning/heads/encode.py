"""What each window of a text and each of its tokens is to be taken for. Knows no model.

The windows are those of `penstock.heads`, in training and in use alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from penstock.heads.windows import FRAME_TOKENS, cuts, framed
from penstock_tuning.data.example import PII, SAFETY, Example

UNKNOWN = -1
_SAFETY_BIT = {label: 1 << index for index, label in enumerate(SAFETY)}
_PII_CLASS = {label: index + 1 for index, label in enumerate(PII)}


@dataclass(frozen=True)
class Window:
    """One row of training data."""

    ids: list[int]
    """With the special tokens."""
    labels: tuple[int, ...] = ()
    """0, 1 or `UNKNOWN` for each label of the task."""
    tokens: tuple[int, ...] = ()
    """For each token: its class (personal data: 0 is none) or the bits of its labels (safety)."""
    known: int = 0
    """Bits of the labels that `tokens` tells apart from others: elsewhere a token may have them."""


def closest(windows: Sequence[list[int]], response: Sequence[int]) -> list[int]:
    """The window that shares most tokens with the response; the first of several."""
    wanted = set(response)
    return max(windows, key=lambda ids: len(wanted.intersection(ids[len(response) + 2 :])))


def safety_windows(example: Example, encoded: Encoding, size: int, overlap: int) -> Iterator[Window]:
    """The windows of a text of which something is known.

    A positive label with marked places holds for the windows that have at least half of one. Without marks it holds
    for a text's only window, else for the first, where attacks announce themselves; of the others nothing is known.
    """
    ids, offsets = encoded.ids, encoded.offsets
    known = sum(bit for label, bit in _SAFETY_BIT.items() if example.label(label) == 0 or label in example.covers)
    marks = _marks(example, offsets, _SAFETY_BIT)
    runs = cuts(len(ids), size - FRAME_TOKENS, overlap)
    for number, (begin, end) in enumerate(runs):
        first, alone = number == 0, len(runs) == 1
        labels = tuple(
            _of_window(example, label, marks, slice(begin, end), first=first, alone=alone) for label in SAFETY
        )
        if any(value != UNKNOWN for value in labels):
            tokens = [0, *marks[begin:end].tolist(), 0]
            yield Window(framed(ids[begin:end]), labels, tuple(tokens), known)


def pii_windows(example: Example, encoded: Encoding, size: int, overlap: int) -> Iterator[Window]:
    """All windows of a text: what a token is does not depend on where a text was cut."""
    ids = encoded.ids
    classes = _marks(example, encoded.offsets, _PII_CLASS, joined=False)
    known = sum(1 << _PII_CLASS[label] for label in example.covers)
    for begin, end in cuts(len(ids), size - FRAME_TOKENS, overlap):
        yield Window(framed(ids[begin:end]), (), (0, *classes[begin:end].tolist(), 0), known)


def _of_window(example: Example, label: str, marks: NDArray[np.int32], run: slice, *, first: bool, alone: bool) -> int:
    value = example.label(label)
    if value is None:
        return UNKNOWN
    if value == 0 or alone:
        return value
    if label in example.covers:
        marked = marks & _SAFETY_BIT[label] != 0
        inside = int(marked[run].sum())
        if 2 * inside >= int(marked.sum()):
            return 1
        return UNKNOWN if inside else 0
    return 1 if first else UNKNOWN


def _marks(
    example: Example, offsets: Sequence[tuple[int, int]], codes: dict[str, int], *, joined: bool = True
) -> NDArray[Any]:
    """`[tokens]`: the codes of the spans that a token touches, as bits, or that of the last one alone."""
    marks = np.zeros(len(offsets), np.int32)
    if not example.spans:
        return marks
    begins, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    for span in example.spans:
        if span.label in codes:
            touched = (begins < span.end) & (ends > span.start)
            marks[touched] = marks[touched] | codes[span.label] if joined else codes[span.label]
    return marks
