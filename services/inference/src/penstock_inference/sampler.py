"""Logits to a token: greedy at temperature 0, else temperature and nucleus sampling.

A sampler belongs to one request and draws from its own generator exactly once for each token, so a
request's text depends on its seed alone and on nothing that shares its batch.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_SEED_SPACE = 2**64
_FIRST_CANDIDATES = (64, 1024)


def resolve_seed(seed: int | None, request_id: str) -> int:
    """A seed in 0..2**64-1: the request's own, else one derived from its id, so that a replay agrees."""
    if seed is not None:
        return seed % _SEED_SPACE
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")


class Sampler:
    """One request's choice of tokens."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._random = np.random.Generator(np.random.PCG64(seed))

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token's id from logits of shape [vocabulary]; ties go to the lowest id."""
        if self._temperature == 0.0:
            return int(np.argmax(logits))
        draw = self._random.random()
        below_best = logits.astype(np.float64) - logits.max()
        with np.errstate(over="ignore"):  # the tiniest temperatures leave the likeliest token alone
            weights = np.exp(below_best / self._temperature)
        if self._top_p >= 1.0:
            return _draw(weights, draw)
        kept = _nucleus(weights, self._top_p)
        return int(kept[_draw(weights[kept], draw)])


def _nucleus(weights: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    """The fewest ids, likeliest first, whose weight reaches `top_p` of the whole; at least one.

    Sorting a whole vocabulary costs more than a small model's forward pass, so the likeliest few are tried first.
    """
    wanted = top_p * weights.sum()
    for count in _FIRST_CANDIDATES:
        if count < len(weights):
            # by value and not by count, so that all equals of the last one come along
            order, cumulative = _descending(weights, np.flatnonzero(weights >= np.partition(weights, -count)[-count]))
            if cumulative[-1] >= wanted:
                break
    else:
        order, cumulative = _descending(weights, np.arange(len(weights)))
    return order[: int(np.searchsorted(cumulative, wanted)) + 1]


def _descending(
    weights: npt.NDArray[np.float64], ids: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The ids by falling weight, equals in the order of their ids, and the running sums of the weights."""
    order = ids[np.argsort(-weights[ids], kind="stable")]
    return order, np.cumsum(weights[order])


def _draw(weights: npt.NDArray[np.float64], draw: float) -> int:
    """Inverse transform sampling: the index at which the cumulative weight passes `draw` in [0, 1)."""
    cumulative = np.cumsum(weights)
    return min(int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")), len(weights) - 1)
