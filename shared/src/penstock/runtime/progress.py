"""How far a partition's work has come when its records finish in any order.

The group's committed offset is the lowest unfinished one; those finished beyond it are a bitmap in the
offset's metadata, so position and bitmap are one record of the same transaction as the outputs. Whoever
owns the partition next skips what the bitmap names. The broker takes 4,096 bytes of metadata
(`offset.metadata.max.bytes`): the span from the lowest unfinished record to the newest delivered one is
bounded, and the bitmap with it. Pure: knows no Kafka.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass

VERSION = "1"
MAX_METADATA_CHARACTERS = 4_095
MAX_SPAN = 24_000
"""Offsets that a bitmap may cover: base64 makes 4,000 characters of them."""


class BadMetadata(ValueError):
    """An offset's metadata that is not ours, or not of this offset."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What to commit for a partition."""

    offset: int
    metadata: str


class Progress:
    """One assigned partition: what was delivered and what is finished.

    Offsets that are never delivered (transaction markers, aborted and compacted records) need no care.
    """

    def __init__(self, start: int, ahead: frozenset[int] = frozenset()) -> None:
        self._next = start
        self._open: deque[int] = deque()
        """Delivered and not yet below the watermark, ascending."""
        self._finished = set(ahead)
        """Finished, at or above the watermark."""
        self._committed = Checkpoint(start, encode(start, self._finished))

    def deliver(self, offset: int) -> bool:
        """Note a record, in the partition's order; False where it was delivered, or finished in an earlier life."""
        if offset < self._next:
            return False
        self._open.append(offset)
        self._next = offset + 1
        return offset not in self._finished

    def finish(self, offset: int) -> None:
        """Note that a delivered record is done: its outputs go into the next transaction."""
        self._finished.add(offset)

    @property
    def watermark(self) -> int:
        """The lowest unfinished offset; the next one where all is finished."""
        while self._open and self._open[0] in self._finished:
            self._finished.discard(self._open.popleft())
        return self._open[0] if self._open else self._next

    @property
    def span(self) -> int:
        """Offsets from the lowest unfinished to the newest delivered."""
        return self._next - self.watermark

    def checkpoint(self) -> Checkpoint:
        """Where the partition stands."""
        base = self.watermark
        return Checkpoint(base, encode(base, self._finished))

    def committed(self, checkpoint: Checkpoint) -> None:
        """The transaction with this checkpoint is through."""
        self._committed = checkpoint

    @property
    def committed_offset(self) -> int:
        """What the broker knows."""
        return self._committed.offset

    @property
    def moved(self) -> bool:
        """Whether there is something that the broker does not know yet."""
        return self.checkpoint() != self._committed


def encode(base: int, finished: set[int]) -> str:
    """The metadata for a committed offset; empty where nothing is finished beyond it.

    Raises ValueError beyond MAX_SPAN: the caller has to bound what it takes.
    """
    ahead = [offset - base for offset in finished if offset > base]
    if not ahead:
        return ""
    top = max(ahead)
    if top >= MAX_SPAN:
        raise ValueError(f"a record finished {top} offsets ahead, more than the {MAX_SPAN} that metadata holds")
    bits = bytearray(top // 8 + 1)
    for distance in ahead:
        bits[distance >> 3] |= 1 << (distance & 7)
    return f"{VERSION}:{base}:{base64.b64encode(bits).decode()}"


def decode(offset: int, metadata: str | None) -> frozenset[int]:
    """What is finished beyond a committed offset; raises BadMetadata where the text is not of this offset."""
    if not metadata:
        return frozenset()
    version, _, rest = metadata.partition(":")
    base, _, bitmap = rest.partition(":")
    if version != VERSION or base != str(offset):
        raise BadMetadata(f"{len(metadata)} characters of metadata that do not belong to offset {offset}")
    try:
        bits = base64.b64decode(bitmap, validate=True)
    except ValueError:
        raise BadMetadata(f"{len(bitmap)} characters of metadata at offset {offset} are not base64") from None
    return frozenset(offset + 8 * at + bit for at, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1)
