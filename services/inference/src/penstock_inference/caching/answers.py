"""The answers kept, by key: bounded in bytes, number and age; the least recently used go first.

An answer keeps its placeholders. Whoever takes it restores them by the vault of the request that asks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from penstock.contracts.events import Alternative, TokenLikelihood
from penstock_inference.backend import FinishedBy, Provenance

ENTRY_BYTES = 1_024
"""What an entry takes beside its text, about."""
LIKELIHOOD_BYTES = 400
"""What a token and its likelihood take, about."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as the last piece of a generation tells of it."""

    text: str
    finish_reason: FinishedBy
    tokens: int
    prompt_tokens: int
    logprobs: tuple[TokenLikelihood, ...] | None = None
    others: tuple[Alternative, ...] = ()
    provenance: Provenance | None = None

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        texts = [self.text, *(other.text for other in self.others)]
        told = [self.logprobs, *(other.logprobs for other in self.others)]
        tokens = sum(1 + len(each.top_logprobs) for likelihoods in told for each in likelihoods or ())
        return ENTRY_BYTES + 4 * sum(map(len, texts)) + LIKELIHOOD_BYTES * tokens


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most of what is kept."""

    bytes: int
    entries: int
    age_s: float


class Answers:
    """Used by one thread; `bytes` and the number may be read by others. `monotonic` gives seconds."""

    def __init__(
        self,
        bounds: Bounds,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        forgotten: Callable[[bytes], None] = lambda key: None,
    ) -> None:
        """`forgotten` is told of each key that goes."""
        self._bounds = bounds
        self._monotonic = monotonic
        self._forgotten = forgotten
        self._by_use: OrderedDict[bytes, tuple[Answer, int]] = OrderedDict()
        self._until: OrderedDict[bytes, float] = OrderedDict()
        """When each is too old, the first to go first: all have the same time."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_use)

    def get(self, key: bytes) -> Answer | None:
        """The answer of a key; None where there is none, or it is too old."""
        self._sweep()
        found = self._by_use.get(key)
        if found is None:
            return None
        self._by_use.move_to_end(key)
        return found[0]

    def put(self, key: bytes, answer: Answer, extra_bytes: int = 0) -> bool:
        """Keep an answer, and what else goes by its key; False where it alone takes more than there is."""
        self._sweep()
        if key in self._by_use:
            self._drop(key)
        size = answer.bytes + extra_bytes
        if size > self._bounds.bytes:
            return False
        self._by_use[key] = (answer, size)
        self._until[key] = self._monotonic() + self._bounds.age_s
        self.bytes += size
        while self.bytes > self._bounds.bytes or len(self._by_use) > self._bounds.entries:
            self._drop(next(iter(self._by_use)))
        return True

    def _sweep(self) -> None:
        now = self._monotonic()
        while self._until:
            key, until = next(iter(self._until.items()))
            if until > now:
                return
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        _, size = self._by_use.pop(key)
        del self._until[key]
        self.bytes -= size
        self._forgotten(key)
