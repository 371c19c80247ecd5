"""An encoder in a thread of its own: texts in, a call with the vector where it is there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from penstock.embeddings.encoder import Embeddings
from penstock.runtime.logging import frames

_log = structlog.get_logger()

Done = Callable[[Embeddings | None], None]
"""Told of a text's vector, [dimensions], in the encoder's thread; None where it could not be embedded."""

_MOST_AT_ONCE = 64
_ENDING_S = 5.0


class Embeds(Protocol):
    """What an `encoder.Encoder` does."""

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """One vector for each text."""
        ...


class Background:
    """What waits goes through the encoder together. The callers bound how much that is."""

    def __init__(self, encoder: Embeds) -> None:
        self._encoder = encoder
        self._queue: queue.SimpleQueue[tuple[str, Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="embed", daemon=True)
        self._thread.start()

    def submit(self, text: str, done: Done) -> None:
        """Embed a text; from any thread."""
        self._queue.put((text, done))

    def close(self) -> None:
        """End the thread after what it is at; a second time does nothing."""
        self._queue.put(None)
        self._thread.join(_ENDING_S)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            waiting = [first]
            ends = False
            while len(waiting) < _MOST_AT_ONCE and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    ends = True
                    break
                waiting.append(more)
            self._embed(waiting)
            if ends:
                return

    def _embed(self, waiting: Sequence[tuple[str, Done]]) -> None:
        vectors: Sequence[Embeddings | None]
        try:
            vectors = list(self._encoder.embed([text for text, _ in waiting]))
        except Exception as error:  # noqa: BLE001  # whoever waits goes on without; its message may quote a text
            _log.error("embeddings.failed", error_type=type(error).__name__, frames=frames(error), texts=len(waiting))
            vectors = [None] * len(waiting)
        for (_, done), vector in zip(waiting, vectors, strict=True):
            done(vector)
