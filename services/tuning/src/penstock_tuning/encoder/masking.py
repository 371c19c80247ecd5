"""Which tokens of a row must be guessed: whole words, a fixed number in every row. Plain NumPy, seeded.

The number is fixed so that shapes are too: only hidden states of masked places go through the output layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.encoder.config import Masking

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Masked:
    """A batch to learn from."""

    ids: Ids
    """`[rows, length]`: what the network reads."""
    places: Ids
    """`[rows, masked]`: which places must be guessed, ascending."""
    labels: Ids
    """`[rows, masked]`: what stood there."""


def masked_count(length: int, masking: Masking) -> int:
    """Tokens of a row that must be guessed, at least one."""
    return max(1, round(length * masking.share))


def mask_tokens(
    ids: Ids,
    starts_word: NDArray[np.bool_],
    masking: Masking,
    rng: np.random.Generator,
    *,
    special: int,
    mask_id: int,
) -> Masked:
    """Draw whole words until the share is reached; the last one may be cut.

    Args:
        ids: `[rows, length]` token ids; those below `special` are special tokens and are masked only where a row has
            nothing else left.
        starts_word: `[vocabulary]`: whether a token begins a word.
        masking: shares.
        rng: of every draw.
        special: number of special tokens, which have the lowest ids.
        mask_id: the id of the mask token.
    """
    rows, length = ids.shape
    is_special = ids < special
    begins = starts_word[ids] | is_special
    begins[:, 0] = True
    word = np.cumsum(begins, axis=1) - 1
    # One random key for a word, so that its tokens are neighbours in a stable order.
    keys = rng.random((rows, length))
    drawn = np.take_along_axis(keys, word, axis=1) + is_special
    order = np.argsort(drawn, axis=1, kind="stable")
    places = np.sort(order[:, : masked_count(length, masking)], axis=1)
    labels = np.take_along_axis(ids, places, axis=1)
    fate = rng.random(places.shape)
    replaced = np.where(fate < masking.random, rng.integers(special, len(starts_word), places.shape), mask_id)
    replaced = np.where(fate >= 1 - masking.kept, labels, replaced)
    read = ids.copy()
    np.put_along_axis(read, places, replaced, axis=1)
    return Masked(read, places, labels)
