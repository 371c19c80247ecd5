"""Tokens to text as they come, holding back what may yet become something else.

Three things are never split or let out too early: the bytes of a UTF-8 character, the beginning of a
stop string, and a placeholder such as `<PERSON_1>`, which a reader of the stream must see whole to
restore it. It knows no model: decoding is a function from token ids to text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"
_MOST_UNFINISHED = 3
"""An unfinished UTF-8 character has at most three bytes; decoders show it as one to three replacements."""

_PLACEHOLDER_BEGINNING = re.compile(r"<(?:[A-Z][A-Z0-9_]{0,63})?\Z")


class Detokenizer:
    """Text of a growing sequence of tokens, only as far as later tokens cannot change it.

    The last finished stretch is decoded again with each new token, since some vocabularies drop or add
    a space at the beginning of a text.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._context_text = ""
        self._pending: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> str:
        """The text that this token made final; may be empty."""
        self._pending.append(token)
        text = self._pending_text()
        unfinished = len(text) - len(text.rstrip(REPLACEMENT))
        final = len(text) - min(unfinished, _MOST_UNFINISHED)
        piece = text[self._emitted : final]
        self._emitted = max(self._emitted, final)
        if not unfinished and text:
            self._context, self._pending, self._emitted = self._pending, [], 0
            self._context_text = self._decode(self._context)
        return piece

    def _pending_text(self) -> str:
        whole = self._decode(self._context + self._pending)
        return whole[len(self._context_text) :]


class SafeText:
    """One answer's text: cut at the first stop string, released in safe pieces."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.length = 0
        """Characters so far, those held back or dropped included."""
        self.stopped = False
        """Whether a stop string has been met; what follows it is dropped."""

    def add(self, text: str) -> str:
        """The text to release after this much more; may be empty."""
        if self.stopped:
            return ""
        self.length += len(text)
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            released, self._held, self.stopped = self._held[: min(found)], "", True
            return released
        safe = self._safe_length()
        released, self._held = self._held[:safe], self._held[safe:]
        return released

    def finish(self) -> str:
        """What was held back, now that nothing follows. An unfinished UTF-8 character is dropped."""
        released, self._held = self._held, ""
        return released

    def _safe_length(self) -> int:
        text = self._held
        beginning = _PLACEHOLDER_BEGINNING.search(text)
        safe = beginning.start() if beginning else len(text)
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:length]):
                    safe = min(safe, len(text) - length)
                    break
        return safe


class TextStream(SafeText):
    """The same of tokens."""

    def __init__(self, decode: Decode, stop: Sequence[str]) -> None:
        super().__init__(stop)
        self._detokenizer = Detokenizer(decode)

    def push(self, token: int) -> str:
        """The text to release after this token; may be empty."""
        return "" if self.stopped else self.add(self._detokenizer.push(token))
