"""Delayed records that are not due yet, in memory: by time, and by the partition they came from. Knows no Kafka."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from penstock.contracts.delays import Delayed
from penstock.runtime.stage import Record

Slot = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record of a retry topic and what its headers say."""

    record: Record
    known: Delayed

    @property
    def slot(self) -> Slot:
        """The partition that it waits in."""
        return self.record.topic, self.record.partition

    @property
    def size(self) -> int:
        """Bytes held."""
        return len(self.record.key or b"") + len(self.record.value or b"")


class WaitingRoom:
    """What waits, the soonest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Waiting]] = []
        self._count = 0
        self.size = 0
        """Bytes held."""

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, waiting: Waiting) -> None:
        """Take a record in."""
        # the counter keeps the order of arrival among those due at once, and records from being compared
        self._count += 1
        heapq.heappush(self._heap, (waiting.known.not_before_ms, self._count, waiting))
        self.size += waiting.size

    def due(self, now_ms: int, most: int) -> list[Waiting]:
        """Take out what is due, the soonest first."""
        found: list[Waiting] = []
        while self._heap and len(found) < most and self._heap[0][0] <= now_ms:
            found.append(heapq.heappop(self._heap)[2])
        self.size -= sum(one.size for one in found)
        return found

    def drop(self, slots: Iterable[Slot]) -> None:
        """Forget what came from these partitions."""
        gone = set(slots)
        self._heap = [entry for entry in self._heap if entry[2].slot not in gone]
        heapq.heapify(self._heap)
        self.size = sum(entry[2].size for entry in self._heap)

    def next_ms(self) -> int | None:
        """When the next one is due; None where nothing waits."""
        return self._heap[0][0] if self._heap else None

    def oldest_ms(self) -> int | None:
        """The timestamp of the record that was written first; None where nothing waits."""
        return min((entry[2].record.timestamp_ms for entry in self._heap), default=None)
