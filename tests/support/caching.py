"""A backend that says what it is told to, and one that keeps answers in front of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from tests.support.targets import PATIENCE_S, request_of

from penstock_inference.backend import GenerationRequest, Piece
from penstock_inference.caching.answers import Bounds
from penstock_inference.caching.backend import Cache, CachingBackend
from penstock_inference.caching.meters import Meters


class Telling:
    """Says what it is told to, in pieces."""

    rows = 2
    versions = {"model": "told"}  # noqa: RUF012  # as a backend has it

    def __init__(self, *pieces: str, **last: Any) -> None:
        self.pieces = pieces or ("an ", "answer")
        self.last = last
        self.asked: list[GenerationRequest] = []
        self.running: list[int] = []
        self.fault: Exception | None = None
        self.closed = False

    def add(self, request: GenerationRequest) -> int:
        self.asked.append(request)
        self.running.append(request.key)
        return 9

    def step(self) -> Sequence[Piece] | None:
        if self.fault is not None:
            raise self.fault
        came = []
        for key in self.running:
            *more, last = self.pieces
            came += [Piece(key, text, number) for number, text in enumerate(more, 1)]
            came.append(Piece(key, last, len(self.pieces), **{"finish_reason": "stop", **self.last}))
        self.running.clear()
        return came

    def cancel(self, key: int) -> None:
        self.running.remove(key)

    def clear(self) -> None:
        self.running.clear()

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Bench:
    """A caching backend and what is behind it."""

    def __init__(self, behind: Any = None, *, sampled: bool = False, entries: int = 100, semantic: Any = None) -> None:
        self.registry = CollectorRegistry()
        self.behind = behind or Telling()
        self.cache = Cache(Bounds(1 << 20, entries, 60), Meters(self.registry), sampled=sampled, semantic=semantic)
        self.answers = self.cache.answers
        self.backend = CachingBackend(self.behind, self.cache, lambda: "m1")
        self._key = 0

    def ask(self, text: str = "one two", **given: Any) -> list[Piece]:
        """The pieces of a new request."""
        self._key += 1
        self.backend.add(request_of(self._key, text, **given))
        return self.pieces(self._key)

    def pieces(self, key: int) -> list[Piece]:
        """The pieces of a request until it ends."""
        until = time.monotonic() + PATIENCE_S
        pieces: list[Piece] = []
        while time.monotonic() < until:
            pieces += [piece for piece in self.backend.step() or () if piece.key == key]
            if pieces and pieces[-1].finish_reason is not None:
                return pieces
        raise AssertionError("the request did not end")

    def counted(self, kind: str) -> float:
        return self.registry.get_sample_value("penstock_answers_asked_total", {"stage": "inference", "kind": kind}) or 0

    @property
    def asked(self) -> int:
        return len(self.behind.asked)


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
