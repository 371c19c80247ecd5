"""Shared word sequences and near-duplicates: hashed runs of words, MinHash, locality-sensitive hashing.

Broder, "On the resemblance and containment of documents", 1997. Signatures have 64 values in 16 bands of 4, so that
two texts of Jaccard similarity 0.8 share a band with probability 0.9998 and two of 0.4 with 0.34; texts that share a
band are compared by their signatures. The packages for this bring scipy to every installation and hash in Python,
one value at a time; with numpy it is the few lines below.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_PERMUTATIONS, _BANDS = 64, 16
_ROWS = _PERMUTATIONS // _BANDS
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_RANDOM = np.random.default_rng(0)
_FACTORS = _RANDOM.integers(1, 1 << 63, _PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 1 << 63, _PERMUTATIONS, dtype=np.uint64)


def words(text: str) -> list[str]:
    """The words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def shingles(found: Sequence[str], size: int) -> Hashes:
    """Distinct 64-bit hashes of all runs of `size` words, ascending; fewer words are one run."""
    if not found:
        return np.empty(0, np.uint64)
    ids = np.fromiter((_word_hash(word) for word in found), np.uint64, len(found))
    count = max(1, len(ids) - size + 1)
    total = np.zeros(count, np.uint64)
    for offset in range(min(size, len(ids))):
        total = (total ^ ids[offset : offset + count]) * _MULTIPLIER
        total ^= total >> np.uint64(29)
    return np.unique(total)


@lru_cache(maxsize=1 << 17)
def _word_hash(word: str) -> int:
    raw = word.encode()
    # Two checksums of different starts: 64 bits that are the same on every machine, at C speed.
    return zlib.crc32(raw) << 32 | zlib.crc32(raw, 0xFFFFFFFF)


def signature(hashes: Hashes) -> Hashes:
    """The MinHash signature: 64 minima. An empty set has the largest values."""
    if not len(hashes):
        return np.full(_PERMUTATIONS, np.iinfo(np.uint64).max, np.uint64)
    mixed = hashes[None, :] * _FACTORS[:, None] + _OFFSETS[:, None]
    minima: Hashes = (mixed ^ (mixed >> np.uint64(32))).min(axis=1)
    return minima


class NearIndex:
    """Finds texts that resemble one seen before; `threshold` is the estimated Jaccard similarity from which they do."""

    def __init__(self, threshold: float = 0.7) -> None:
        self._threshold = threshold
        self._tables: list[dict[bytes, list[int]]] = [{} for _ in range(_BANDS)]
        self._signatures: list[Hashes] = []
        self._groups: list[str] = []

    def add(self, mine: Hashes, group: str = "") -> None:
        """Remember a signature."""
        for table, key in zip(self._tables, self._keys(mine), strict=True):
            table.setdefault(key, []).append(len(self._signatures))
        self._signatures.append(mine)
        self._groups.append(group)

    def knows(self, mine: Hashes, group: str | None = None) -> bool:
        """Whether a remembered signature (of this group) resembles it."""
        candidates = {
            other
            for table, key in zip(self._tables, self._keys(mine), strict=True)
            for other in table.get(key, ())
            if group is None or self._groups[other] == group
        }
        return any(np.mean(self._signatures[other] == mine) >= self._threshold for other in candidates)

    def absorb(self, other: NearIndex) -> None:
        """Remember all that another index remembers."""
        for mine, group in zip(other._signatures, other._groups, strict=True):
            self.add(mine, group)

    @staticmethod
    def _keys(mine: Hashes) -> list[bytes]:
        raw, size = mine.tobytes(), _ROWS * mine.itemsize
        return [raw[at : at + size] for at in range(0, len(raw), size)]


class Sequences:
    """The runs of eight words of held-out texts: what shares one with them is known to them."""

    SIZE = 8

    def __init__(self, texts: Sequence[str]) -> None:
        found = [shingles(words(text), self.SIZE) for text in texts]
        self._hashes: Hashes = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)

    def share(self, found: Sequence[str]) -> bool:
        """Whether the words contain a run of a held-out text, or are, as a whole, a held-out text of fewer words."""
        mine = shingles(found, self.SIZE)
        if not len(self._hashes) or not len(mine):
            return False
        at = np.minimum(np.searchsorted(self._hashes, mine), len(self._hashes) - 1)
        return bool((self._hashes[at] == mine).any())
