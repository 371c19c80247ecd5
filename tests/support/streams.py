"""A reader of `llm.result-tokens` as a consumer should be: the first of each sequence counts, repeats are dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from confluent_kafka import Message

from penstock.contracts.streams import StreamState, TokensRestored


class ResultStreams:
    """All streams of one reader."""

    def __init__(self) -> None:
        self.pieces: dict[str, dict[int, TokensRestored]] = {}
        """By request id, further answers by the id and `#` with the index; then by sequence."""
        self.repeats = 0
        self.changed: list[TokensRestored] = []
        """Repeats that say something else than what they repeat."""

    def take(self, messages: Iterable[Message]) -> None:
        """Messages in, in the order of their partitions."""
        for message in messages:
            piece = TokensRestored.model_validate_json(message.value())
            name = f"{piece.request_id}#{piece.index}" if piece.index else piece.request_id
            known = self.pieces.setdefault(name, {}).setdefault(piece.sequence, piece)
            if known is not piece:
                self.repeats += 1
                if known != piece:
                    self.changed.append(piece)

    def text(self, request_id: str) -> str:
        """All that one stream has told so far; none of its pieces may be missing."""
        stream = self.pieces.get(request_id, {})
        assert sorted(stream) == list(range(len(stream))), "a piece is missing"
        return "".join(stream[sequence].text for sequence in sorted(stream))

    def ended(self, request_id: str) -> bool:
        """Whether the last piece has come."""
        return any(piece.final for piece in self.pieces.get(request_id, {}).values())

    def state(self, request_id: str) -> StreamState | None:
        """How it ended, once its last piece says the same of the text as the text itself."""
        stream, text = self.pieces[request_id], self.text(request_id)
        last = stream[len(stream) - 1]
        assert [piece.final for piece in stream.values()].count(True) == int(last.final) == 1
        assert (last.characters, last.sha256) == (len(text), hashlib.sha256(text.encode()).hexdigest())
        return last.state
