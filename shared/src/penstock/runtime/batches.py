"""A batch of consumed messages, and how many to take for the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from confluent_kafka import Message, TopicPartition

from penstock.contracts.events import Priority
from penstock.runtime.settings import ServiceSettings

FIRST_BATCH = 500
FULL_BATCH = 100
"""After a batch of at least this many it pays to wait for a fuller one."""

Slot = tuple[str, int]


@dataclass
class Batch:
    """Messages in flight, from where they began to where they end in each partition."""

    messages: list[Message]
    abandoned: bool = False
    committed: bool = False
    first: dict[Slot, int] = field(default_factory=dict)
    last: dict[Slot, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for message in self.messages:
            slot, offset = slot_of(message), message.offset()
            self.first.setdefault(slot, offset)
            self.last[slot] = offset

    def __len__(self) -> int:
        return len(self.messages)

    def offsets(self) -> list[TopicPartition]:
        """What to commit: the offset after the last record of each partition."""
        return [TopicPartition(topic, number, offset + 1) for (topic, number), offset in self.last.items()]


def slot_of(message: Message) -> Slot:
    """The partition that a message came from."""
    return message.topic(), message.partition()


def patience_s(settings: ServiceSettings, lane: Priority, last: int) -> float:
    """How long to wait for a fuller batch after one of `last` records.

    Bulk work is in no hurry, and each transaction of a few records takes broker and processor from the interactive
    lane: it waits longer, and as soon as records come by twos.
    """
    if lane == "bulk":
        return settings.lane_bulk_wait_ms / 1000 if last > 1 else 0.0
    return settings.batch_wait_ms / 1000 if last >= FULL_BATCH else 0.0


class BatchSize:
    """How many records to take: as many as take about a target of time, by what the last ones took.

    A transaction costs the broker the same however many records it holds; what is abandoned in a rebalance, or
    waits for a slow neighbour, grows with it.
    """

    def __init__(self, most: int, target_s: float) -> None:
        self._most = most
        self._target_s = target_s
        self.records = min(most, FIRST_BATCH)

    def took(self, seconds: float, records: int) -> None:
        """A batch of so many took this long; from one batch to the next the size no more than doubles."""
        fitting = int(records * self._target_s / max(seconds, 1e-6))
        self.records = max(1, min(self._most, fitting, 2 * self.records))
