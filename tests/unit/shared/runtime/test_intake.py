"""`penstock.runtime.intake`: which partitions are read where there is never room for all."""

from __future__ import annotations

from collections import Counter

from confluent_kafka import TopicPartition
from tests.support.memory_log import MemoryConsumer, MemoryLog, MemoryMessage

from penstock.runtime.intake import Intake, Lane
from penstock.runtime.metrics import StageMetrics

SLOTS = [("t", number) for number in range(4)]


class Fetching(MemoryConsumer):
    """Reads first what was resumed first, as the client does: its next request to the broker goes out at once."""

    def resume(self, partitions: list[TopicPartition]) -> None:
        super().resume(partitions)
        for one in partitions:
            slot = (one.topic, one.partition)
            self._positions[slot] = self._positions.pop(slot)


def test_each_partition_has_its_turn_where_one_alone_would_fill_the_room() -> None:
    log = MemoryLog(SLOTS)
    for slot in SLOTS:
        for number in range(100):
            log.append(slot, MemoryMessage(slot, number, 1, b"k", b"v", []))
    consumer = Fetching(log)
    intake = Intake(
        Lane("interactive", ("t",), "g"),
        {},
        client=lambda _: consumer,
        stage="s",
        metrics=StageMetrics("s"),
        max_span=10_000,
        assigned=lambda: None,
        revoked=lambda _: None,
        lost=lambda _: None,
    )
    intake.subscribe()
    consumer.tell("on_assign", SLOTS)
    taken: Counter[int] = Counter()
    for _ in range(8):
        taken.update(fresh.record.partition for fresh in intake.take(10, 0))
        assert intake.take(0, 0) == []
    assert taken == {0: 20, 1: 20, 2: 20, 3: 20}
