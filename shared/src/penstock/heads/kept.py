"""Answers kept by the digest of their text: conversations send their history anew, applications their instructions.

The text itself is not kept. Only for answers that follow from the text alone, whatever else goes through the model.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

Part = TypeVar("Part")

MOST_ANSWERS: Final = 4_096
MOST_PARTS: Final = 64
"""Of an answer that is kept."""


class Kept(Generic[Part]):
    """The answers used last. Used by one thread."""

    def __init__(self, answer: Callable[[str], Sequence[Part]], most: int = MOST_ANSWERS) -> None:
        """`answer` is asked where a text's is not there; what it raises is raised."""
        self._answer = answer
        self._most = most
        self._known: OrderedDict[bytes, tuple[Part, ...]] = OrderedDict()

    def __call__(self, text: str) -> Sequence[Part]:
        """The answer for a text."""
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        found = tuple(self._answer(text))
        if len(found) <= MOST_PARTS:
            self._known[key] = found
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return found
