"""Following `llm.result-tokens`: each stream in order, each piece once, and whether all of it came.

What is shown where is left to the caller's callback.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container
from types import TracebackType

from confluent_kafka import TopicPartition
from pydantic import ValidationError

from penstock.cli.reading import Read, record_of
from penstock.cli.target import Target, bounds
from penstock.contracts.headers import REQUEST_ID
from penstock.contracts.streams import TokensRestored
from penstock.contracts.topics import RESULT_TOKENS

_BATCH = 500

OnPiece = Callable[[TokensRestored], None]
"""Called with each piece that is new, in order."""


class Follow:
    """One stream as its reader has it: drops repeats by sequence, and knows whether it has all."""

    def __init__(self) -> None:
        self.ended = False
        """The last piece came, or one is missing: nothing more will be shown."""
        self.whole = False
        """All that the sender told is here."""
        self._next = 0
        self._characters = 0
        self._digest = hashlib.sha256()

    def take(self, piece: TokensRestored) -> bool:
        """Whether the piece is new, and the next one."""
        if self.ended or piece.sequence < self._next:
            return False
        if piece.sequence > self._next:
            self.ended = True
            return False
        self._next += 1
        self._characters += len(piece.text)
        self._digest.update(piece.text.encode())
        if piece.final:
            self.ended = True
            self.whole = (piece.characters, piece.sha256) == (self._characters, self._digest.hexdigest())
        return True


class LiveStreams:
    """What comes to `llm.result-tokens` after this object was made."""

    def __init__(self, target: Target, on_piece: OnPiece) -> None:
        topic = target.topic(RESULT_TOKENS)
        partitions = target.partitions(RESULT_TOKENS)
        self._on_piece = on_piece
        self._open: dict[tuple[str, int], Follow] = {}
        self._reader = target.reader()
        ends = bounds(self._reader, topic, partitions)
        self._reader.assign([TopicPartition(topic, number, ends[number].high) for number in partitions])

    def take_in(self, ours: Container[str], timeout_s: float) -> None:
        """Hand on what has come for the requests that are `ours`; waits for the first piece."""
        first = self._reader.poll(timeout_s)
        if first is None:
            return
        for message in [first, *self._reader.consume(_BATCH, timeout=0)]:
            record = record_of(message)
            if record is not None and (record.header(REQUEST_ID) or b"").decode("utf-8", "replace") in ours:
                self._take(record)

    def ended(self, request_id: str, index: int = 0) -> bool:
        """Whether the end of a stream has come."""
        follow = self._open.get((request_id, index))
        return follow is not None and follow.ended

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()

    def __enter__(self) -> LiveStreams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, record: Read) -> None:
        try:
            piece = TokensRestored.model_validate_json(record.value or b"")
        except ValidationError:
            return  # another release's, or none of ours: the result counts
        if self._open.setdefault((piece.request_id, piece.index), Follow()).take(piece):
            self._on_piece(piece)
