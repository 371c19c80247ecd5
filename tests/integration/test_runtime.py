"""The consume-transform-produce loop on a real broker."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from tests.support import foreign
from tests.support.stack import wait_until
from tests.support.toy import Harness, Toy, ids_of

from penstock.contracts import headers as header_names
from penstock.contracts.errors import BackendUnavailable
from penstock.contracts.events import RequestPreprocessed
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.topics import ANONYMIZED, DEAD_LETTERS, PREPROCESSED, RESULTS
from penstock.local.kafka import LocalKafka
from penstock.runtime import kafka, topics
from penstock.runtime.outcomes import Output
from penstock.runtime.publisher import Fenced, Publisher
from penstock.runtime.stage import Inbound

pytestmark = pytest.mark.broker


@pytest.fixture
def harness(bootstrap: str, prefix: str) -> Harness:
    return Harness(bootstrap, prefix)


def test_every_record_becomes_one_event(harness: Harness) -> None:
    ids = [f"r{number}" for number in range(1500)]
    harness.publish(ids)
    with harness.working(Toy()):
        seen = ids_of(harness.read(ANONYMIZED, len(ids)))
    assert seen == Counter(ids)


def test_a_header_name_that_no_client_of_ours_can_read_is_refused_by_name_and_holds_up_nobody(
    harness: Harness, bootstrap: str
) -> None:
    harness.publish(["a"], conversation="c")
    foreign.publish(bootstrap, harness.names.topic(PREPROCESSED), b"kept", partition=0)
    foreign.publish(bootstrap, harness.names.topic(PREPROCESSED), b"kept", partition=1)
    harness.publish(["b"], conversation="c")
    with harness.working(Toy()):
        assert ids_of(harness.read(ANONYMIZED, 2)) == Counter(["a", "b"])
        results = harness.read(RESULTS, 2)
        letters = harness.read(DEAD_LETTERS, 2)
    errors = [RequestFinished.model_validate_json(result.value()).error for result in results]
    assert [(error.code, error.field, error.stage) for error in errors if error] == [
        ("invalid_header", "headers", "toy")
    ] * 2
    assert [letter.value() for letter in letters] == [b"kept"] * 2


def test_a_bug_costs_one_record_and_keeps_its_bytes(harness: Harness) -> None:
    def act(inbound: Inbound) -> None:
        if inbound.expect(RequestPreprocessed).context.request_id == "bad":
            raise ZeroDivisionError("secret text")

    harness.publish(["a", "bad", "c"])
    with harness.working(Toy(act)):
        assert ids_of(harness.read(ANONYMIZED, 2)) == Counter(["a", "c"])
        (result,) = harness.read(RESULTS, 1)
        (letter,) = harness.read(DEAD_LETTERS, 1)
    finished = RequestFinished.model_validate_json(result.value())
    assert (finished.id, finished.status) == ("bad", "failed")
    assert finished.error is not None
    assert finished.error.code == "internal_error"
    assert "secret" not in finished.model_dump_json()
    reason = DeadLetter.model_validate_json(dict(letter.headers())[header_names.DEAD_LETTER])
    assert reason.stage == "toy"
    assert RequestPreprocessed.model_validate_json(letter.value()).context.request_id == "bad"


def test_what_is_retriable_is_tried_again(harness: Harness) -> None:
    attempts: Counter[str] = Counter()

    def act(inbound: Inbound) -> None:
        request_id = inbound.expect(RequestPreprocessed).context.request_id
        attempts[request_id] += 1
        if request_id == "flaky" and attempts[request_id] < 3:
            raise BackendUnavailable("busy")
        if request_id == "dead":
            raise BackendUnavailable("down")

    harness.publish(["ok", "flaky", "dead"])
    with harness.working(Toy(act)):
        assert ids_of(harness.read(ANONYMIZED, 2)) == Counter(["ok", "flaky"])
        (letter,) = harness.read(DEAD_LETTERS, 1)
    assert attempts == Counter({"ok": 1, "flaky": 3, "dead": harness.settings.retry_attempts})
    reason = DeadLetter.model_validate_json(dict(letter.headers())[header_names.DEAD_LETTER])
    assert reason.attempts == harness.settings.retry_attempts


def test_polling_goes_on_while_a_batch_is_slow(harness: Harness) -> None:
    began, done = threading.Event(), threading.Event()

    def act(inbound: Inbound) -> None:
        if inbound.expect(RequestPreprocessed).context.request_id == "slow":
            began.set()
            done.wait(60)

    harness.publish(["slow"])
    with harness.working(Toy(act)):
        assert began.wait(60)
        harness.publish([f"later{number}" for number in range(50)])
        beats = {harness.health._beat}
        until = time.monotonic() + 60
        while len(beats) < 10 and time.monotonic() < until:
            time.sleep(0.02)
            beats.add(harness.health._beat)
        done.set()
        seen = ids_of(harness.read(ANONYMIZED, 51))
    assert len(beats) == 10
    assert len(seen) == 51
    assert set(seen.values()) == {1}


def test_state_is_part_of_the_transaction_and_survives(harness: Harness) -> None:
    harness.publish(["a", "b", "c"], conversation="talk")
    first = harness.store()
    with harness.working(Toy(state=first), states=[first]):
        assert len(harness.read(ANONYMIZED, 3)) == 3
    second = harness.store()
    harness.publish(["d"], conversation="talk")
    with harness.working(Toy(state=second), states=[second]):
        assert len(harness.read(ANONYMIZED, 4)) == 4
        assert second.get("talk") == "4"


def test_a_second_instance_takes_over_half_and_nothing_is_doubled(harness: Harness) -> None:
    ids = [f"n{number}" for number in range(600)]
    with harness.working(Toy(lambda _: time.sleep(0.002))):
        harness.publish(ids[:300])
        with harness.working(Toy(lambda _: time.sleep(0.002)), instance="1"):
            harness.publish(ids[300:])
            time.sleep(2)
        seen = ids_of(harness.read(ANONYMIZED, len(ids)))
    assert seen == Counter(ids)


def test_a_partition_that_left_while_it_was_paused_is_read_again_when_it_comes_back(harness: Harness) -> None:
    began, done = threading.Event(), threading.Event()

    def act(inbound: Inbound) -> None:
        if inbound.expect(RequestPreprocessed).context.request_id == "slow":
            began.set()
            done.wait(60)

    harness.publish(["slow"])
    with harness.working(Toy(act)):
        assert began.wait(60)
        with harness.working(Toy(), instance="1") as second:
            wait_until(lambda: len(second._owned) == 1, "a partition of the second's own")
            done.set()
        later = [f"later{number}" for number in range(50)]
        harness.publish(later)
        seen = ids_of(harness.read(ANONYMIZED, 51))
    assert seen == Counter(["slow", *later])


def test_an_older_process_of_the_same_slot_is_fenced(harness: Harness) -> None:
    config = kafka.producer(harness.settings, harness.names.transactional_id("toy", "7"))
    older, newer = Publisher(config, harness.names), Publisher(config, harness.names)
    older.start()
    newer.start()
    consumer = Consumer({"bootstrap.servers": harness.settings.kafka_bootstrap_servers, "group.id": "fence"})
    with pytest.raises(Fenced):
        older.commit([Output(ANONYMIZED, b"k", b"v", [])], {}, [], consumer)
    consumer.close()


@pytest.mark.timeout(300)
def test_a_broker_that_comes_back_is_worked_with_again(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path).start()
    try:
        topics.apply(broker.bootstrap_servers, "b.", replication=1, partitions=2)
        harness = Harness(broker.bootstrap_servers, "b.")
        state = harness.store()
        with harness.working(Toy(state=state), states=[state]):
            harness.publish(["before"], conversation="talk")
            assert len(harness.read(ANONYMIZED, 1)) == 1
            broker.kill()
            time.sleep(3)
            broker.start()
            harness.publish(["after"], conversation="talk")
            assert ids_of(harness.read(ANONYMIZED, 2, seconds=150)) == Counter(["before", "after"])
            assert state.get("talk") == "2"
    finally:
        broker.stop()
