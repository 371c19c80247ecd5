"""What a consumer fetches ahead, on a real broker: bounded however well records compress, none too large to come."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.kafka import settings
from tests.support.stack import wait_until

from penstock.runtime import kafka

pytestmark = [pytest.mark.broker]

PARTITIONS = 2
QUEUED_KBYTES = 2_048
MIB = 2**20


@pytest.fixture
def topic(bootstrap: str) -> Iterator[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    name = f"t{uuid.uuid4().hex[:10]}.fetched"
    config = {"max.message.bytes": str(16 * MIB)}
    admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)])[name].result(20)
    yield name
    admin.delete_topics([name])[name].result(20)


def write(bootstrap: str, topic: str, values: Iterable[bytes]) -> None:
    producer = Producer(kafka.producer(settings(bootstrap, ""), None))
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % PARTITIONS)
    assert producer.flush(60) == 0


class Fetching:
    """A stage's consumer that takes one record and no more; `queued` is what its client then holds."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.records = self.size = 0
        shared = settings(bootstrap, "").model_copy(update={"queue_max_kbytes": QUEUED_KBYTES})
        config = kafka.consumer(shared, f"g{uuid.uuid4().hex[:10]}")
        self.consumer = Consumer({**config, "statistics.interval.ms": 100, "stats_cb": self._statistics})
        self.consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])

    def _statistics(self, text: str) -> None:
        facts: dict[str, Any] = json.loads(text)
        partitions = [part for topic in facts["topics"].values() for part in topic["partitions"].values()]
        # all partitions share one queue, and each shows it as its own
        self.records = max(part["fetchq_cnt"] for part in partitions)
        self.size = max(part["fetchq_size"] for part in partitions)

    def settled(self) -> int:
        """Bytes of values fetched ahead, once there have been the same for a second, but for those taken meanwhile."""
        peak, since = 0, time.monotonic()
        while not peak or time.monotonic() - since < 1:
            assert time.monotonic() - since < 60, "nothing is fetched"
            self.consumer.poll(0)  # what serves the statistics; it takes a record along
            time.sleep(0.05)
            if self.size > peak:
                peak, since = self.size, time.monotonic()
        return peak

    def close(self) -> None:
        self.consumer.close()


def test_records_that_compress_well_are_not_fetched_much_further_ahead(bootstrap: str, topic: str) -> None:
    write(bootstrap, topic, (8 * os.urandom(2_048) for _ in range(4_000)))  # 62 MiB, and an eighth of it on the way
    with closing(Fetching(bootstrap, topic)) as fetching:
        assert QUEUED_KBYTES / 1024 <= fetching.settled() / MIB <= 16


def test_a_record_larger_than_any_answer_comes(bootstrap: str, topic: str) -> None:
    value = os.urandom(8 * MIB)
    assert len(value) > kafka.FETCH_BYTES
    write(bootstrap, topic, [value] * 3)
    found: list[Message] = []
    with closing(Fetching(bootstrap, topic)) as fetching:

        def taken() -> bool:
            found.extend(fetching.consumer.consume(1, timeout=0.5))
            return len(found) == 3

        wait_until(taken, "three large records")
    assert [message.error() for message in found] == [None] * 3
    assert all(message.value() == value for message in found)
