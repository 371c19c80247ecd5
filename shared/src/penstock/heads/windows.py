"""Tokens to the rows that go through the encoder. Knows no model and no text.

A row has the start token, a run of the text's tokens and the separator; a pair has the response, a separator, and a
run of the evidence. Long texts are several rows that overlap, in training and in use alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

START_ID: Final = 2
SEPARATOR_ID: Final = 3
FRAME_TOKENS: Final = 2
"""Special tokens of a row that is no pair."""


def cuts(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Beginnings and ends of the runs of at most `size` of `length` tokens, neighbours sharing `overlap`.

    The last one is as long as the others: it overlaps more instead.
    """
    if length <= size:
        return [(0, length)]
    begins = [*range(0, length - size, size - overlap), length - size]
    return [(begin, begin + size) for begin in begins]


def framed(ids: Sequence[int]) -> list[int]:
    """A run of tokens between the special ones."""
    return [START_ID, *ids, SEPARATOR_ID]


def pair_windows(response: Sequence[int], evidence: Sequence[int], size: int, overlap: int) -> list[list[int]]:
    """A response with each run of its evidence; of a response longer than half a window its beginning counts."""
    said = response[: size // 2 - 2]
    room = size - len(said) - 3
    shared = min(overlap, room // 2)
    return [
        [START_ID, *said, SEPARATOR_ID, *evidence[begin:end], SEPARATOR_ID]
        for begin, end in cuts(len(evidence), room, shared)
    ]
