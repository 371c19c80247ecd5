"""`make bench-pipeline` in short: the harness counts what arrives, and a real chain of five gets all of it through."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from tests.benchmarks.pipeline import chain as chains
from tests.benchmarks.pipeline.chain import Chain, Drain, Latency
from tests.benchmarks.pipeline.passing import HOPS, PATH, REQUEST_BYTES, request
from tests.benchmarks.pipeline.report import Runs, figures, quantile
from tests.support.stack import StackError

from penstock.contracts import topics
from penstock.runtime.topics import apply


@contextmanager
def answering(chain: Chain, answer: Callable[[int, bytes], list[bytes]]) -> Iterator[None]:
    """In place of the five hops: reads requests as they become visible and writes what `answer` makes of each."""
    ended = threading.Event()
    apply(chain.bootstrap, chain.prefix, replication=1, partitions=chains.PARTITIONS)

    def run() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": chain.bootstrap,
                "group.id": f"{chain.prefix}answering",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        producer = Producer({"bootstrap.servers": chain.bootstrap})
        consumer.subscribe([f"{chain.prefix}{topics.REQUESTS}"])
        seen = 0
        while not ended.is_set():
            for message in consumer.consume(1000, 0.1):
                if message.error() is None:
                    for value in answer(seen, message.key() or b""):
                        producer.produce(f"{chain.prefix}{topics.RESULTS}", value, message.key())
                    seen += 1
            producer.flush()
        consumer.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)
        assert not thread.is_alive()


def result(name: bytes) -> bytes:
    return b'{"object":"chat.completion","id":"' + name + b'"}'


@pytest.fixture
def hopless(bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    monkeypatch.setattr(chains, "HOPS", ())
    monkeypatch.setattr(chains, "WARM_UP", 1)
    return Chain("none", bootstrap, tmp_path)


@pytest.mark.broker
def test_a_second_result_is_counted_as_a_duplicate_and_not_as_another_request(hopless: Chain) -> None:
    with answering(hopless, lambda seen, name: [result(name)] * (2 if seen == 5 else 1)), hopless as chain:
        assert chain.drain(200).duplicates == 1


@pytest.mark.broker
def test_a_missing_result_is_an_error_and_no_figure(hopless: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(hopless, lambda seen, name: [] if seen == 5 else [result(name)]), hopless as chain:
        monkeypatch.setattr(chains, "STUCK_S", 8.0)
        with pytest.raises(StackError, match="199 of 200 results"):
            chain.drain(200)


@pytest.mark.broker
def test_five_services_pass_everything_on_once(bootstrap: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with Chain("penstock", bootstrap, tmp_path) as chain:
        latency = chain.latency(rate=20, count=20, warm_up=5)
        drain = chain.drain(500)
    spent = 1000 * (time.monotonic() - began)
    assert (drain.messages, drain.duplicates) == (500, 0)
    assert set(drain.rss_mb) == {hop.name for hop in HOPS}
    assert all(memory > 1 for memory in drain.rss_mb.values())
    assert len(latency.total) == 20
    assert all(0 < total < spent for total in latency.total)
    for number, total in enumerate(latency.total):
        assert sum(latency.hops[hop.name][number] for hop in HOPS) == pytest.approx(total)


def test_a_request_is_about_a_kibibyte() -> None:
    assert 0.9 * REQUEST_BYTES < len(request("1-0")) < 1.1 * REQUEST_BYTES
    assert PATH == (
        topics.REQUESTS,
        topics.PREPROCESSED,
        topics.ANONYMIZED,
        topics.SCREENED,
        topics.COMPLETIONS,
        topics.RESULTS,
    )


def test_quantiles_are_of_the_values() -> None:
    assert quantile(range(1, 101), 0.5) == 51
    assert quantile(range(1, 101), 0.99) == 100
    assert quantile([7.0], 0.99) == 7.0


def drained(messages: int, seconds: float, cpu_us: float, memory: float) -> Drain:
    return Drain(messages, seconds, cpu_us, 0, {"a": memory, "b": 10.0})


def test_ratios_are_of_medians_and_growth_is_against_the_smallest_backlog() -> None:
    timed = [Latency([milliseconds], {"a": [milliseconds]}) for milliseconds in (1.0, 2.0, 30.0)]
    ours = Runs(
        [
            [drained(10, 1, 20, 50), drained(100, 10, 22, 50), drained(1000, 110, 25, 53)],
            [drained(10, 1, 20, 50), drained(100, 10, 22, 50), drained(1000, 100, 24, 52)],
            [drained(10, 1, 20, 50), drained(100, 10, 22, 50), drained(1000, 9000, 99, 51)],
        ],
        timed,
    )
    bare = Runs([[drained(1000, 80, 15, 50)]], timed)
    slow = Runs([[drained(100, 100, 900, 50)]], [Latency([4.0], {"a": [4.0]})])
    latency = Runs([[drained(100, 1, 20, 50)]], [Latency([2.5], {"a": [2.5]})])
    others = {"penstock at least once": bare, "penstock latency mode": latency, "bare": bare, "faststream": slow}
    found = figures({"penstock": ours, **others})
    assert found["vs_faststream"] == pytest.approx(1000 / 110, abs=0.05)
    assert found["vs_bare_chain"] == pytest.approx(80 / 110, abs=0.001)
    assert found["cost_growth"] == pytest.approx(0.25)
    assert found["time_growth"] == pytest.approx(0.1)
    assert found["rss_growth_mb"] == 2.0
    assert found["p50_vs_faststream"] == 0.5
    assert (found["latency_mode_p50_vs_faststream"], found["latency_mode_duplicates"]) == (0.62, 0)
    assert found["backlogs"] == [10, 100, 1000]
