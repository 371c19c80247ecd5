"""Attempts on a real broker: long waits hold up nobody, are counted over kills, and end in one result."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.support.kafka import read_all
from tests.support.retrying import Process
from tests.support.stack import wait_until
from tests.support.toy import Harness, ids_of

from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.topics import ANONYMIZED, DEAD_LETTERS, PREPROCESSED, RESULTS, RETRY_ANONYMIZE
from penstock.runtime import kafka, offsets

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

QUICK = {"retry_backoff_ms": "1", "retry_policies": "{}"}


class Bench:
    """Topics of one test and the service that works on them."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        self._where = (bootstrap, prefix)
        self._folder = folder
        self.harness = Harness(bootstrap, prefix)

    def process(self, instance: str = "0", **settings: str) -> Process:
        return Process(*self._where, self._folder, instance=instance, **QUICK | settings)

    def read(self, topic: str) -> list[Any]:
        return read_all(*self._where, topic)

    def done(self) -> Counter[str]:
        return ids_of(self.read(ANONYMIZED))

    def wait_done(self, ids: list[str], seconds: float = 90) -> None:
        wait_until(lambda: set(ids) <= set(self.done()), f"{len(ids)} records passed on", seconds)


@pytest.fixture
def bench(bootstrap: str, prefix: str, tmp_path: Path) -> Bench:
    return Bench(bootstrap, prefix, tmp_path)


def test_a_long_wait_holds_up_no_other_record(bench: Bench) -> None:
    # one key, so one partition; the first would need 99 waits of a second before it passed
    others = [f"gone.0.0.{number}" for number in range(50)]
    bench.harness.publish(["rate.99.1.stuck", *others], conversation="talk")
    with bench.process(retry_attempts="100", batch_max_records="100") as service:
        bench.wait_done(others)
        wait_until(lambda: len(service.calls.of("rate.99.1.stuck")) >= 3, "attempts at the one that waits")
    assert bench.done() == Counter(others)


def test_what_is_due_passes_what_waits_longer_and_is_not_put_back_again_after_a_kill(bench: Bench) -> None:
    bench.harness.publish(["rate.1.250.long", "rate.1.1.short"], conversation="talk")
    with bench.process() as service:
        bench.wait_done(["rate.1.1.short"])
        waiting = 'penstock_retry_waiting_records{stage="anonymize"}'
        wait_until(lambda: service.metric(waiting) == 1, "one record waiting")
        assert service.metric('penstock_retry_oldest_waiting_seconds{stage="anonymize"}') > 0
        for how in ("delayed", "in_place"):
            labels = f'{{code="rate_limited",how="{how}",stage="anonymize"}}'
            assert service.metric(f"penstock_retries_total{labels}") == (2 if how == "delayed" else -1)
        service.kill()
        bench.harness.publish(["rate.1.1.later"], conversation="talk")
        service.start()
        # it stands behind the other two on the retry topic
        bench.wait_done(["rate.1.1.later"])
    assert bench.done() == Counter(["rate.1.1.short", "rate.1.1.later"])
    assert [len(service.calls.of(one)) for one in ("rate.1.250.long", "rate.1.1.short", "rate.1.1.later")] == [1, 2, 2]
    moved = ids_of(bench.read(PREPROCESSED))
    assert moved == Counter({"rate.1.250.long": 1, "rate.1.1.short": 2, "rate.1.1.later": 2})


@pytest.mark.parametrize(("kind", "in_place_ms"), [("rate", 0), ("full", 60_000)])
def test_retry_after_is_honoured_in_place_and_by_way_of_the_topic(bench: Bench, kind: str, in_place_ms: int) -> None:
    request_id = f"{kind}.2.2.a"
    bench.harness.publish([request_id])
    with bench.process(retry_in_place_max_ms=str(in_place_ms)) as service:
        bench.wait_done([request_id])
        first, second, third = service.calls.of(request_id)
    # the clock of the process may be read some milliseconds late, never early
    assert second - first >= 1.99
    assert third - second >= 1.99
    assert len(bench.read(RETRY_ANONYMIZE)) == (2 if in_place_ms == 0 else 0)


def test_a_kill_in_the_middle_of_a_wait_keeps_the_count_and_the_end_is_a_dead_letter(bench: Bench) -> None:
    request_id = "rate.99.3.never"
    bench.harness.publish([request_id])
    (original,) = bench.harness.read(PREPROCESSED, 1)
    with bench.process(retry_attempts="4") as service:
        wait_until(lambda: len(bench.read(RETRY_ANONYMIZE)) == 2, "two delays", 90)
        service.kill()
        service.start()
        wait_until(lambda: len(bench.read(DEAD_LETTERS)) == 1, "the dead letter", 90)
        calls = len(service.calls.of(request_id))
    # a call under way at the kill may be made again; a count that began anew would make six
    assert calls in (4, 5)
    (result,) = bench.read(RESULTS)
    finished = RequestFinished.model_validate_json(result.value())
    assert (finished.status, finished.error and finished.error.code) == ("failed", "rate_limited")
    (message,) = bench.read(DEAD_LETTERS)
    headers = dict(message.headers())
    letter = DeadLetter.model_validate_json(headers.pop("dead-letter"))
    assert (letter.attempts, letter.stage, letter.error.code) == (4, "anonymize", "rate_limited")
    assert letter.error.retriable
    assert letter.versions["anonymize"] == "test"
    place = (letter.source.topic, letter.source.partition, letter.source.offset)
    assert place == (original.topic(), original.partition(), original.offset())
    assert letter.original_timestamp_ms == original.timestamp()[1]
    assert (message.value(), message.key(), list(headers.items())) == (
        original.value(),
        original.key(),
        list(original.headers()),
    )
    assert bench.done() == Counter()


def test_kills_and_a_second_instance_lose_and_repeat_nothing(bench: Bench) -> None:
    kinds = ("rate", "full", "late", "gone")
    ids = [f"{kinds[number % 4]}.{number // 4 % 4}.{number % 3}.{number}" for number in range(300)]
    bench.harness.publish(ids)
    settings = {"retry_in_place_max_ms": "5", "retry_attempts": "100", "batch_max_records": "20"}
    with bench.process(**settings) as first, bench.process("1", **settings) as second:
        for service in (first, second, first):
            before = sum(bench.done().values())
            wait_until(lambda before=before: sum(bench.done().values()) > before or before == 300, "progress", 90)
            service.kill()
            time.sleep(random.uniform(0, 0.5))
            service.start()
        bench.wait_done(ids, 150)
    assert bench.done() == Counter(ids)
    assert bench.read(DEAD_LETTERS) == []


def test_more_than_the_window_holds_waits_in_kafka_and_all_of_it_comes_back(bench: Bench) -> None:
    ids = [f"rate.{1 + number % 2}.1.{number}" for number in range(60)]
    bench.harness.publish(ids, conversation="talk")
    with bench.process(retry_window_records="3", retry_window_kbytes="1", batch_max_records="10") as service:
        bench.wait_done(ids, 150)
        assert [len(service.calls.of(one)) for one in ids] == [2 + number % 2 for number in range(60)]
    assert bench.done() == Counter(ids)


def test_offsets_set_by_hand_are_where_the_service_reads_its_retry_topic_on(bench: Bench) -> None:
    """With metadata of another offset, as a tool writes that copies it: it is said, and no record waits for ever."""
    settings = bench.harness.settings
    topic = bench.harness.names.topic(RETRY_ANONYMIZE)
    by_hand = [TopicPartition(topic, number, 0, "1:5:AQ==") for number in range(2)]
    consumer = Consumer(kafka.common(settings) | {"group.id": bench.harness.names.retry_group("anonymize")})
    offsets.committed(consumer, by_hand)  # there is a coordinator from here on
    assert [one.error for one in consumer.commit(offsets=by_hand, asynchronous=False)] == [None, None]
    consumer.close()
    bench.harness.publish(["rate.1.1.a"])
    with bench.process() as service:
        bench.wait_done(["rate.1.1.a"])
        assert "runtime.progress.refused" in service.said()
    assert bench.done() == Counter(["rate.1.1.a"])


def test_a_deadline_that_comes_before_the_next_attempt_ends_the_wait(bench: Bench) -> None:
    now_ms = time.time_ns() // 1_000_000
    bench.harness.publish(["rate.99.250.a"], deadline_ms=now_ms + 100_000)
    with bench.process() as service:
        wait_until(lambda: len(bench.read(RESULTS)) == 1, "the result")
        assert len(service.calls.of("rate.99.250.a")) == 1
    (message,) = bench.read(RESULTS)
    result = RequestFinished.model_validate_json(message.value())
    assert result.status == "expired"
    assert result.error is not None
    assert "rate_limited" in result.error.message
    assert bench.read(DEAD_LETTERS) == bench.read(RETRY_ANONYMIZE) == []
