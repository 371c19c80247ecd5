"""Which texts go through an encoder together: those of about one length, so that little of a pass is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

STEP: Final = 16
"""Tokens; a batch is padded to a multiple, so that passes have few different shapes."""


def batches(lengths: Sequence[int], most_tokens: int) -> Iterator[tuple[list[int], int]]:
    """Indices of the texts of each batch, and the width it is padded to; `lengths` are in tokens.

    A batch has one width, that of all its texts rounded up, and at most `most_tokens` with its padding; a text
    that is longer by itself is alone.
    """
    indices: list[int] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        rounded = max(STEP, -(-lengths[index] // STEP) * STEP)
        if indices and (rounded != width or (len(indices) + 1) * width > most_tokens):
            yield indices, width
            indices = []
        indices.append(index)
        width = rounded
    if indices:
        yield indices, width
