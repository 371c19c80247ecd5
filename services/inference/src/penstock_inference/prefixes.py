"""The prefix cache: keys and values of prompts' beginnings, kept for the next prompt that begins alike.

Blocks of GRID tokens in chains, as in a trie: a block is found by the block before it and its own tokens, compared
as they are, so a match is exact; chains of different adapters have nothing in common. Least recently used blocks go
first, ends of chains before their beginnings. Only what prefill computed is kept: a decode pass rounds otherwise, and
a reused block must change no answer. A prompt's last two tokens are never reused, since their logits are wanted and a
pass over one token rounds otherwise.

Blocks are shared by all requests of the process, whatever their tenants: what is in them never leaves it, though
the time to first token may tell that some other prompt began alike.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_inference.scheduler import GRID

Block = npt.NDArray[Any]
"""Keys and values of GRID tokens: [layers, 2, kv_heads, GRID, head_size]."""

Counted = Callable[[int, int], None]
"""Told of each prompt how many of its tokens were reused and how many computed."""

_ROOT = 0
_Key = tuple[int | str, tuple[int, ...]]
"""The block before it, or the adapter that the first one was computed with, and its tokens."""


def count_nothing(reused: int, computed: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class _Node:
    number: int
    """By which its followers find it; never used again."""
    place: int
    """Of its block among the blocks."""


class PrefixCache:
    """At most `limit_bytes` of blocks like `block`, whose memory is taken whole here and then neither grows nor moves.

    Used by one thread; the counts may be read by others.
    """

    def __init__(self, limit_bytes: int, block: Block, counted: Counted = count_nothing) -> None:
        self._nodes: OrderedDict[_Key, _Node] = OrderedDict()
        # touched, so that the memory is there from the start: taken with the first prompt, it cost it four passes
        self._blocks = np.full((limit_bytes // block.nbytes, *block.shape), 0, block.dtype)
        self._free = list(range(len(self._blocks)))
        self._last = _ROOT
        self._counted = counted
        self.reused_tokens = 0
        """Of all prompts so far: copied from here."""
        self.computed_tokens = 0
        """Of all prompts so far: run through the model."""

    def reusable(self, prompt: Sequence[int], adapter: str | None = None) -> int:
        """How many of the prompt's first tokens are here, as computed with an adapter or without."""
        return GRID * sum(1 for _ in self._chain(prompt, adapter))

    def fetch(self, prompt: Sequence[int], tokens: int, adapter: str | None = None) -> list[Block]:
        """The blocks of the prompt's first `tokens`, which `reusable` named, good until the next `store`.

        Counts the prompt as begun.
        """
        found = list(self._chain(prompt, adapter))[: tokens // GRID]
        for key, _ in reversed(found):  # so that a beginning is always newer than what follows it
            self._nodes.move_to_end(key)
        self.reused_tokens += tokens
        self.computed_tokens += len(prompt) - tokens
        self._counted(tokens, len(prompt) - tokens)
        return [self._blocks[node.place] for _, node in found]

    def store(self, prompt: Sequence[int], read: Callable[[int, int], Block], adapter: str | None = None) -> None:
        """Keep the prompt's blocks; `read` copies those of tokens start..stop-1 that are not here."""
        keys: list[_Key] = []
        before: int | str = adapter or _ROOT
        for start in range(0, _usable(prompt), GRID):
            key = (before, tuple(prompt[start : start + GRID]))
            node = self._nodes.get(key)
            if node is not None:
                self._nodes.move_to_end(key)  # what is kept for this prompt drives out none of it
            else:
                block = read(start, start + GRID)
                place = self._place(beside=len(keys))
                if place is None:
                    break
                self._blocks[place] = block
                self._last += 1
                node = self._nodes[key] = _Node(self._last, place)
            before = node.number
            keys.append(key)
        for key in reversed(keys):
            self._nodes.move_to_end(key)

    @property
    def bytes(self) -> int:
        """What the kept blocks take."""
        return len(self._nodes) * self._blocks[:1].nbytes

    def clear(self) -> None:
        """Forget all blocks."""
        self._free += [node.place for node in self._nodes.values()]
        self._nodes.clear()

    def _place(self, beside: int) -> int | None:
        """Where a block may stand, once the least recently used one has gone if need be; all are alike.

        None where there is room for no more than the `beside` newest.
        """
        if beside >= len(self._blocks):
            return None
        if not self._free:
            _, node = self._nodes.popitem(last=False)
            return node.place
        return self._free.pop()

    def _chain(self, prompt: Sequence[int], adapter: str | None) -> Iterator[tuple[_Key, _Node]]:
        before: int | str = adapter or _ROOT
        for start in range(0, _usable(prompt), GRID):
            key = (before, tuple(prompt[start : start + GRID]))
            node = self._nodes.get(key)
            if node is None:
                return
            yield key, node
            before = node.number


def _usable(prompt: Sequence[int]) -> int:
    return max(0, len(prompt) - 2) // GRID * GRID
