"""One lane of an unordered stage: its consumer, the progress of its partitions, and back-pressure.

The worker's thread owns it. Rebalances run inside `take`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from penstock.contracts.events import Priority
from penstock.runtime import offsets
from penstock.runtime.access import NOT_AUTHORIZED
from penstock.runtime.kafka import ErrorLog, is_fatal, record_of
from penstock.runtime.lag import Slot, show_lag
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.progress import Checkpoint, Progress
from penstock.runtime.stage import Record

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Lane:
    """What a lane reads, and as whom."""

    name: Priority
    topics: tuple[str, ...]
    group: str


@dataclass(frozen=True, slots=True)
class Fresh:
    """A record to be processed, and the partition's progress that its end belongs to."""

    record: Record
    progress: Progress


class Intake:
    """The consumer of one lane."""

    def __init__(
        self,
        lane: Lane,
        config: dict[str, Any],
        *,
        client: Callable[[dict[str, Any]], Consumer],
        stage: str,
        metrics: StageMetrics,
        max_span: int,
        assigned: Callable[[], None],
        revoked: Callable[[set[Progress]], None],
        lost: Callable[[set[Progress]], None],
    ) -> None:
        """`revoked` and `lost` are told whose partitions go, while they are still ours."""
        self.lane = lane
        self._consumer = client({**config, "stats_cb": self._statistics, "error_cb": ErrorLog()})
        self._stage = stage
        self._metrics = metrics
        self._max_span = max_span
        self._assigned = assigned
        self._revoked = revoked
        self._lost = lost
        self._parts: dict[Slot, Progress] = {}
        self._turn = 0
        self._served: dict[Slot, int] = {}
        """The turn in which a partition last gave something."""
        self._paused: set[Slot] = set()
        self._closing = False

    @property
    def consumer(self) -> Consumer:
        """For the transaction's group metadata, and to commit without one."""
        return self._consumer

    def subscribe(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            list(self.lane.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def take(self, room: int, wait_s: float) -> list[Fresh]:
        """Up to `room` new records, waiting for the first only; also what keeps the membership alive."""
        self._hold_back(room)
        self._turn += 1
        message = self._consumer.poll(wait_s)
        messages = [] if message is None else [message]
        if message is not None and room > 1:
            messages += self._consumer.consume(room - 1, timeout=0)
        fresh = []
        for message in messages:
            error = message.error()
            if error is None:
                fresh += self._deliver(message)
            elif is_fatal(error) or error.code() in NOT_AUTHORIZED:
                raise KafkaException(error)
            else:
                _log.warning("runtime.consume.error", error=error.name(), topic=message.topic())
        return fresh

    def checkpoints(self) -> dict[Slot, Checkpoint]:
        """Where the partitions stand that have moved since the last commit."""
        return {slot: progress.checkpoint() for slot, progress in self._parts.items() if progress.moved}

    def committed(self, checkpoints: dict[Slot, Checkpoint]) -> None:
        """A transaction with these is through."""
        for slot, checkpoint in checkpoints.items():
            if (progress := self._parts.get(slot)) is not None:
                progress.committed(checkpoint)

    def close(self) -> None:
        """Leave the group."""
        self._closing = True
        self._consumer.close()

    def _deliver(self, message: Message) -> list[Fresh]:
        slot = (message.topic(), message.partition())
        progress = self._parts.get(slot)
        if progress is None:  # revoked while this batch was taken: it is the new owner's
            return []
        self._served[slot] = self._turn
        if progress.deliver(message.offset()):
            return [Fresh(record_of(message), progress)]
        self._metrics.skipped.labels(self._stage).inc()
        return []

    def _hold_back(self, room: int) -> None:
        """Pause what must not grow: all where there is no room, and a partition whose span is used up.

        Those that waited longest go on first. The client asks the broker as soon as the first of them has gone on, and
        its answer alone may fill the room again: in an order that never changes, the last ones were never read.
        """
        full = {slot for slot, progress in self._parts.items() if room < 1 or progress.span >= self._max_span}
        if full - self._paused:
            self._consumer.pause([TopicPartition(*slot) for slot in sorted(full - self._paused)])
        if self._paused - full:
            again = sorted(
                (self._paused - full) & self._parts.keys(), key=lambda slot: (self._served.get(slot, 0), slot)
            )
            self._consumer.resume([TopicPartition(*slot) for slot in again])
        self._paused = full

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """One read gives position and bitmap together; it waits for a dead owner's open transaction."""
        if self._closing:  # the group's last word to a member that leaves: nothing of it is taken
            consumer.incremental_assign(partitions)
            return
        placed = []
        for known in offsets.committed(consumer, partitions):
            start = known.offset if known.offset >= 0 else consumer.get_watermark_offsets(known, timeout=20)[0]
            self._parts[known.topic, known.partition] = Progress(start, offsets.ahead(known))
            placed.append(TopicPartition(known.topic, known.partition, start))
        self._assigned()
        consumer.incremental_assign(placed)
        consumer.resume(placed)  # a partition that left while it was paused still is: the client keeps that
        self._metrics.rebalances.labels(self._stage, "assigned").inc()
        _log.info("runtime.partitions.assigned", lane=self.lane.name, count=len(partitions), owned=len(self._parts))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._revoked(self._ending(partitions))
        self._forget(consumer, partitions, "revoked")

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._lost(self._ending(partitions))
        self._forget(consumer, partitions, "lost")

    def _statistics(self, text: str) -> None:
        positions = {slot: progress.committed_offset for slot, progress in self._parts.items()}
        show_lag(self._metrics, self._stage, text, positions, idle=all(not part.span for part in self._parts.values()))

    def _ending(self, partitions: list[TopicPartition]) -> set[Progress]:
        return {mine for p in partitions if (mine := self._parts.get((p.topic, p.partition))) is not None}

    def _forget(self, consumer: Consumer, partitions: list[TopicPartition], kind: str) -> None:
        for partition in partitions:
            self._parts.pop((partition.topic, partition.partition), None)
            self._paused.discard((partition.topic, partition.partition))
            self._served.pop((partition.topic, partition.partition), None)
            self._metrics.lag.remove_by_labels({"topic": partition.topic, "partition": str(partition.partition)})
        self._metrics.rebalances.labels(self._stage, kind).inc()
        consumer.incremental_unassign(partitions)
        _log.info(f"runtime.partitions.{kind}", lane=self.lane.name, count=len(partitions), owned=len(self._parts))
