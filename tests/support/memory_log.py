"""An in-memory log with groups and transactions, for a state machine: what a broker promises, and no more.

It stands in for Kafka where thousands of interleavings are to be tried; what Kafka itself does is tested
on a real broker (`tests/integration`, `tests/faults`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TopicPartition

from penstock.contracts.base import Message as Contract
from penstock.runtime.ledger import Begun
from penstock.runtime.outcomes import Output
from penstock.runtime.publisher import Aborted

Slot = tuple[str, int]


@dataclass
class MemoryMessage:
    """A record as a consumer gets it; the methods are the client's."""

    at: Slot
    number: int
    made_ms: int
    the_key: bytes
    the_value: bytes
    the_headers: list[tuple[str, bytes]]

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return self.at[0]

    def partition(self) -> int:
        return self.at[1]

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> tuple[int, int]:
        return (1, self.made_ms)

    def key(self) -> bytes:
        return self.the_key

    def value(self) -> bytes:
        return self.the_value

    def headers(self) -> list[tuple[str, bytes]]:
        return self.the_headers


@dataclass
class MemoryLog:
    """Partitions, who owns each, what is committed, and what committed transactions wrote."""

    slots: Sequence[Slot]
    records: dict[Slot, list[MemoryMessage]] = field(default_factory=dict)
    gaps: dict[Slot, int] = field(default_factory=dict)
    offsets: dict[Slot, tuple[int, str]] = field(default_factory=dict)
    owners: dict[Slot, MemoryConsumer] = field(default_factory=dict)
    visible: list[Output] = field(default_factory=list)
    notes: dict[str, Contract | Begun] = field(default_factory=dict)
    aborts: int = 0
    """So many transactions to come are aborted."""

    def append(self, slot: Slot, message: MemoryMessage) -> None:
        self.records.setdefault(slot, []).append(message)

    def next_offset(self, slot: Slot) -> int:
        """Transaction markers take offsets too: each publication leaves a gap."""
        kept = self.records.get(slot, [])
        return kept[-1].number + 2 if kept else 0


class MemoryConsumer:
    """A member of the one group; what the log does to its partitions reaches it in its next `poll`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[Slot, int] = {}
        self._paused: set[Slot] = set()
        self._events: list[tuple[str, list[Slot]]] = []
        self._calls: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        self.repeat = False
        """Whether the next poll delivers the last record again."""
        self._last: MemoryMessage | None = None

    # --- the client's side

    def subscribe(self, topics: list[str], **calls: Callable[[Any, list[TopicPartition]], None]) -> None:
        self._calls = calls

    def poll(self, timeout: float) -> MemoryMessage | None:
        while self._events:
            kind, slots = self._events.pop(0)
            self._calls[kind](self, [TopicPartition(*slot) for slot in slots])
        if self.repeat and self._last is not None and self._last.at in self._positions:
            self.repeat = False
            return self._last
        for slot, position in self._positions.items():
            if slot in self._paused:
                continue
            for message in self._log.records.get(slot, []):
                if message.number >= position:
                    self._positions[slot] = message.number + 1
                    self._last = message
                    return message
        return None

    def consume(self, count: int, timeout: float) -> list[MemoryMessage]:
        found = []
        while len(found) < count and (message := self.poll(0)) is not None:
            found.append(message)
        return found

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        answer = []
        for one in partitions:
            offset, metadata = self._log.offsets.get((one.topic, one.partition), (-1001, ""))
            answer.append(TopicPartition(one.topic, one.partition, offset, metadata))
        return answer

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return (0, self._log.next_offset((partition.topic, partition.partition)))

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self._positions.update({(one.topic, one.partition): one.offset for one in partitions})

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self._positions.pop((one.topic, one.partition), None)
            if self._last is not None and self._last.at == (one.topic, one.partition):
                self._last = None  # a client repeats nothing of an earlier ownership
            # as in the real client, a partition that leaves while it is paused still is when it comes back

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {(one.topic, one.partition) for one in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._paused -= {(one.topic, one.partition) for one in partitions}

    def close(self) -> None:
        self._events.clear()

    # --- the log's side

    def tell(self, kind: str, slots: list[Slot]) -> None:
        self._events.append((kind, slots))


class MemoryPublisher:
    """Transactions: all or nothing, and only by who owns the partitions."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def commit(
        self,
        outputs: Sequence[Output],
        state: Mapping[str, object],
        positions: Sequence[tuple[MemoryConsumer, list[TopicPartition]]],
        patience: Callable[[float], bool],
        *,
        singly: bool = False,
    ) -> dict[str, dict[str, int]]:
        if self._log.aborts:
            self._log.aborts -= 1
            raise Aborted("as the test asked")
        for consumer, offsets in positions:
            for one in offsets:
                if self._log.owners.get((one.topic, one.partition)) is not consumer:
                    raise Aborted("no longer a member")
        for _, offsets in positions:
            for one in offsets:
                self._log.offsets[one.topic, one.partition] = (one.offset, one.metadata or "")
        self._log.visible.extend(outputs)
        return {}

    def close(self) -> None:
        """Nothing is open."""


class MemoryLedger:
    """Notes that survive the process."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def find(self, key: str) -> Contract | Begun | None:
        return self._log.notes.get(key)

    def begin(self, key: str) -> None:
        self._log.notes[key] = Begun()

    def answer(self, key: str, outcome: Contract) -> None:
        self._log.notes[key] = outcome

    def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._log.notes.pop(key, None)

    def catch_up(self) -> None:
        """All is there at once."""

    def refresh(self) -> None:
        """Likewise."""

    def close(self) -> None:
        """Nothing to leave."""
