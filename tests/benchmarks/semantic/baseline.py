"""Words and character n-grams, weighted by how rare they are, hashed into a vector: what needs no model."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from penstock.embeddings.encoder import Embeddings

DIMENSIONS = 8_192
_WORD = re.compile(r"\w+")


class NGrams:
    """Implements what an encoder does. Rarity is counted over `texts` (tf-idf)."""

    def __init__(self, texts: Sequence[str]) -> None:
        seen = np.zeros(DIMENSIONS, np.float32)
        for text in texts:
            seen[sorted(set(_features(text)))] += 1
        self._rarity = np.log((1 + len(texts)) / (1 + seen)) + 1

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """One vector for each text, at unit length."""
        found = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            for feature in _features(text):
                found[row, feature] += self._rarity[feature]
        unit: Embeddings = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit


def _features(text: str) -> Iterable[int]:
    for word in _WORD.findall(text.casefold()):
        framed = f"<{word}>"
        yield _hash(framed)
        for size in (3, 4):
            for start in range(len(framed) - size + 1):
                yield _hash(framed[start : start + size])


def _hash(text: str) -> int:
    return zlib.crc32(text.encode()) % DIMENSIONS
