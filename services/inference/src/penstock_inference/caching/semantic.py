"""Kept answers by meaning: the last message's embedding, among those of requests whose rest is the same.

The rest is everything in the exact key but that message, and what the guard reads off it. No text is kept here:
digests and vectors alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.embeddings.background import Background, Done
from penstock.embeddings.encoder import Embeddings

_FIRST_ROWS = 4


@dataclass(frozen=True, slots=True)
class Question:
    """A request's last message, and the digest of all that must be equal."""

    text: str
    rest: bytes


class Vectors:
    """Unit vectors by key, for the nearest one: [rows, dimensions], doubled as they come."""

    def __init__(self, dimensions: int) -> None:
        self._rows: Embeddings = np.empty((_FIRST_ROWS, dimensions), np.float32)
        self._keys: list[bytes] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes, vector: Embeddings) -> None:
        """Append a vector, [dimensions]."""
        if len(self._keys) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[len(self._keys)] = vector
        self._keys.append(key)

    def remove(self, key: bytes) -> None:
        """Take a vector out; the last one takes its place."""
        row, last = self._keys.index(key), self._keys.pop()
        if row < len(self._keys):
            self._keys[row] = last
            self._rows[row] = self._rows[len(self._keys)]

    def nearest(self, vector: Embeddings) -> tuple[bytes, float]:
        """The key of the highest cosine, and that cosine."""
        cosines: Any = self._rows[: len(self._keys)] @ vector
        row = int(cosines.argmax())
        return self._keys[row], float(cosines[row])


class Semantic:
    """Used by one thread, but for `ask`'s answer, which comes in the encoder's."""

    def __init__(self, background: Background, *, similarity: float, digest: str) -> None:
        """`similarity` is the lowest cosine that counts as the same meaning, `digest` the encoder's."""
        self.digest = digest
        self._background = background
        self._similarity = similarity
        self._rests: dict[bytes, Vectors] = {}
        self._rest_of: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._rest_of)

    def ask(self, question: Question, done: Done) -> None:
        """Have a question embedded; `done` is told in another thread."""
        self._background.submit(question.text, done)

    def find(self, question: Question, vector: Embeddings) -> bytes | None:
        """The key of an answer to a question that means the same."""
        vectors = self._rests.get(question.rest)
        if not vectors:
            return None
        key, cosine = vectors.nearest(vector)
        return key if cosine >= self._similarity else None

    def add(self, question: Question, key: bytes, vector: Embeddings) -> None:
        """Note the question of an answer; a vector of length 0 says nothing, and is not noted."""
        if not vector.any():
            return
        vectors = self._rests.setdefault(question.rest, Vectors(len(vector)))
        vectors.add(key, vector)
        self._rest_of[key] = question.rest

    def forget(self, key: bytes) -> None:
        """Its answer is gone."""
        rest = self._rest_of.pop(key, None)
        if rest is None:
            return
        vectors = self._rests[rest]
        vectors.remove(key)
        if not vectors:
            del self._rests[rest]

    def close(self) -> None:
        """End the encoder's thread."""
        self._background.close()
