"""Static membership on a real broker: what a restart keeps, and what a second process of the same slot meets."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from confluent_kafka import KafkaException
from tests.support.stack import wait_until
from tests.support.toy import Harness, Toy, ids_of

from penstock.contracts.topics import ANONYMIZED, PREPROCESSED
from penstock.runtime import kafka
from penstock.runtime.health import Health
from penstock.runtime.processor import Processor
from penstock.runtime.publisher import Publisher
from penstock.runtime.stage import Inbound
from penstock.runtime.worker import Worker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

IN_TIME_S = 4.0
"""Well within the broker's session (6 s), after which partitions move all the same."""
TRIES = 5
"""A machine so busy that a restart takes longer shows nothing: once more."""


class Two:
    """Two instances over two partitions, and which partitions each has worked on."""

    def __init__(self, bootstrap: str, prefix: str, *, static: bool) -> None:
        self.harness = Harness(bootstrap, prefix)
        self.harness.settings = self.harness.settings.model_copy(update={"kafka_static_membership": static})
        self.seen: dict[str, set[int]] = {"0": set(), "1": set()}
        self.sent: list[str] = []
        self._running: dict[str, ExitStack] = {}

    def start(self, instance: str) -> None:
        def act(inbound: Inbound) -> None:
            self.seen[instance].add(inbound.record.partition)

        self._running[instance] = ExitStack()
        self._running[instance].enter_context(self.harness.working(Toy(act), instance))

    def stop(self, instance: str) -> None:
        self._running.pop(instance).close()

    def publish(self, count: int = 40) -> None:
        ids = [f"r{len(self.sent) + number}" for number in range(count)]
        self.harness.publish(ids)
        self.sent += ids

    def settle(self) -> None:
        """Publish until each works on a partition of its own."""

        def apart() -> bool:
            self.seen["0"].clear()
            self.seen["1"].clear()
            self.publish()
            time.sleep(0.3)
            return [len(found) for found in self.seen.values()] == [1, 1] and self.seen["0"] != self.seen["1"]

        wait_until(apart, "a partition for each instance")

    def restart(self) -> tuple[set[int], float]:
        """Restart `0` gracefully, requests coming meanwhile: what `1` worked on then, and how long `0` was away."""
        self.stop("0")
        gone = time.monotonic()
        self.seen["0"].clear()
        self.publish()
        self.start("0")
        wait_until(lambda: bool(self.seen["0"]), "the restarted instance at work")
        return set(self.seen["1"]), time.monotonic() - gone

    def close(self) -> None:
        for instance in list(self._running):
            self.stop(instance)


def test_a_graceful_restart_keeps_its_partitions(bootstrap: str, prefix: str) -> None:
    two = Two(bootstrap, prefix, static=True)
    try:
        two.start("0")
        two.start("1")
        for _ in range(TRIES):
            two.settle()
            before = {instance: set(found) for instance, found in two.seen.items()}
            others, away_s = two.restart()
            if away_s < IN_TIME_S:
                assert others == before["1"], "the other instance took the partition"
                assert two.seen["0"] == before["0"]
                break
        else:
            pytest.fail(f"no restart was done within {IN_TIME_S} s")
        assert ids_of(two.harness.read(ANONYMIZED, len(two.sent))) == Counter(two.sent)
    finally:
        two.close()


def test_without_it_the_other_instance_takes_over(bootstrap: str, prefix: str) -> None:
    two = Two(bootstrap, prefix, static=False)
    try:
        two.start("0")
        two.start("1")
        two.settle()
        two.stop("0")
        two.publish()
        wait_until(lambda: two.seen["1"] == {0, 1}, "both partitions at the one that is left")
        assert ids_of(two.harness.read(ANONYMIZED, len(two.sent))) == Counter(two.sent)
    finally:
        two.close()


def test_the_slot_of_a_live_member_is_refused_and_the_second_process_ends(bootstrap: str, prefix: str) -> None:
    two = Two(bootstrap, prefix, static=True)
    try:
        two.start("0")
        two.publish()
        wait_until(lambda: bool(two.seen["0"]), "the first at work")
        stopping = threading.Event()
        second = Worker(
            name="toy",
            topics=[two.harness.names.topic(PREPROCESSED)],
            settings=two.harness.settings,
            processor=Processor(
                Toy(), two.harness.settings, names=two.harness.names, metrics=two.harness.metrics, stopping=stopping
            ),
            publisher=Publisher(kafka.producer(two.harness.settings, "of-another-slot"), two.harness.names),
            states={},
            metrics=two.harness.metrics,
            health=Health(),
            stopping=stopping,
        )
        with pytest.raises(KafkaException) as refused:
            second.run()
        assert kafka.is_fatal(refused.value.args[0])
        two.publish()
        assert ids_of(two.harness.read(ANONYMIZED, len(two.sent))) == Counter(two.sent)
    finally:
        two.close()
