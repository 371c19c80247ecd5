"""Requests at a steady rate with the broker's word on each, and a reader that sees results as they come.

What is counted: a request is *acknowledged* when the broker has said that it holds it, *lost* when it was
acknowledged and has no result, a *duplicate* each result beyond the first of its request. Results are those
that a read_committed consumer sees.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from rich.console import Console
from rich.table import Table
from tests.support.background import Background
from tests.support.kafka import read_all, settings
from tests.support.stack import StackError

from penstock.contracts import headers as header_names
from penstock.contracts import topics
from penstock.contracts.events import GenerationParameters, PromptPart, RequestContext, RequestPreprocessed, Source
from penstock.contracts.topics import StateEntry
from penstock.runtime import kafka

CONVERSATIONS = 97
STUCK_S = 180.0
"""No new result for this long, with no fault at work, is a loss."""


class Load(Background):
    """Publishes numbered requests to the chain's first topic from a thread of its own while it runs."""

    def __init__(
        self, bootstrap: str, prefix: str, *, rate: float, total: int, config: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__("load")
        self._producer = Producer({**kafka.producer(settings(bootstrap, prefix), None), **(config or {})})
        self._topic = f"{prefix}{topics.PREPROCESSED}"
        self._rate = rate
        self._total = total
        self._lock = threading.Lock()
        self._acknowledged: set[str] = set()
        self._failed: list[KafkaError] = []
        self._paused = threading.Event()
        self.sent = 0

    @property
    def acknowledged(self) -> set[str]:
        """The ids of the requests that the broker has said it holds."""
        with self._lock:
            return set(self._acknowledged)

    @property
    def waiting(self) -> int:
        """Requests sent and not yet acknowledged."""
        self._check()
        with self._lock:
            return self.sent - len(self._acknowledged) - len(self._failed)

    @property
    def done(self) -> bool:
        """Whether all were sent."""
        self._check()
        return self.sent >= self._total

    def send(self, count: int, partition: int | None = None) -> None:
        """Publish some more at once, while the steady load is paused."""
        for _ in range(count):
            self._publish(partition)
        self._producer.poll(0)

    def pause(self) -> None:
        """No new requests until `resume`."""
        self._paused.set()

    def resume(self) -> None:
        """Go on."""
        self._paused.clear()

    def finish(self, seconds: float = 240) -> None:
        """Stop sending and wait for the word on each request; raises KafkaException where there is none."""
        self._stop()
        self._check()
        left = self._producer.flush(seconds)
        if left or self._failed:
            raise KafkaException(self._failed[0] if self._failed else KafkaError(KafkaError._TIMED_OUT, f"{left} left"))

    def _close(self) -> None:
        self._producer.purge()
        self._producer.flush(5)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set() and not self.done:
            self._producer.poll(0)
            if self._paused.is_set():
                due = time.monotonic()
                time.sleep(0.01)
                continue
            if time.monotonic() < due:
                time.sleep(0.005)
                continue
            self._publish(None)
            due += 1 / self._rate
        while not self._ending.is_set():
            self._producer.poll(0.1)

    def _publish(self, partition: int | None) -> None:
        with self._lock:
            number = self.sent
            self.sent += 1
        event = request(number)
        context = event.context
        kafka.enqueue(
            self._producer,
            self._topic,
            event.encode(),
            context.conversation_id.encode(),
            headers=header_names.of_context(context, event.schema_ref()),
            on_delivery=self._delivered(context.request_id),
            partition=partition,
        )

    def _delivered(self, request_id: str) -> Any:
        def report(error: KafkaError | None, _: Message) -> None:
            with self._lock:
                if error is None:
                    self._acknowledged.add(request_id)
                else:
                    self._failed.append(error)

        return report


def request(number: int) -> RequestPreprocessed:
    """The request of a number: the same each time."""
    return RequestPreprocessed(
        context=RequestContext(
            request_id=f"r{number}",
            conversation_id=f"c{number % CONVERSATIONS}",
            submitted_ms=time.time_ns() // 1_000_000,
            source=Source(topic=topics.REQUESTS, partition=0, offset=number),
        ),
        prompt=(PromptPart(kind="text", text=f"What is river number {number}? " * 8),),
        parameters=GenerationParameters(model="m", max_tokens=8),
    )


class Watch(Background):
    """Follows the results from a thread of its own: which requests have one, and the longest time without a new one."""

    def __init__(self, bootstrap: str, prefix: str, topic: str = topics.RESULTS) -> None:
        super().__init__("watch")
        self._consumer = Consumer(kafka.reader(settings(bootstrap, prefix), f"{prefix}watch"))
        name = f"{prefix}{topic}"
        partitions = self._consumer.list_topics(name, timeout=30).topics[name].partitions
        self._consumer.assign([TopicPartition(name, number, 0) for number in partitions])
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._last = time.monotonic()
        self.longest_gap_s = 0.0

    @property
    def seen(self) -> set[str]:
        """Requests with a result."""
        self._check()
        with self._lock:
            return set(self._seen)

    def count(self) -> int:
        """How many requests have a result."""
        self._check()
        with self._lock:
            return len(self._seen)

    def rest(self) -> None:
        """What follows is a new beginning: the time until the next result counts from here."""
        with self._lock:
            self._last = time.monotonic()

    def since_last_s(self) -> float:
        """Seconds since the last new result."""
        with self._lock:
            return time.monotonic() - self._last

    def _close(self) -> None:
        self._consumer.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            # an error is the client's word that a broker is away: it goes on by itself
            ids = {id_of(m) for m in self._consumer.consume(1_000, 0.1) if m.error() is None}
            with self._lock:
                if ids - self._seen:
                    now = time.monotonic()
                    self.longest_gap_s = max(self.longest_gap_s, now - self._last)
                    self._last = now
                    self._seen |= ids


@dataclass(frozen=True)
class Sums:
    """What came of the acknowledged requests."""

    acknowledged: int
    results: int
    lost: int
    duplicates: int
    unknown: int
    """Results of requests that nobody had acknowledged."""
    state_wrong: int
    """Conversations whose counter in the first service's state is not the number of their requests."""

    @property
    def conserved(self) -> bool:
        """Nothing lost, nothing twice, in results and state."""
        return not (self.lost or self.duplicates or self.unknown or self.state_wrong)


@dataclass(frozen=True, kw_only=True)
class Borne:
    """What came of a steady load that a suite's faults befell; a suite adds fields for figures of its own."""

    sums: Sums
    longest_stall_s: float
    """Longest time without a new result under the steady load."""
    service_restarts: int
    seconds: float

    def summary(self, careless: Sums) -> dict[str, object]:
        """The last line: the sums, the suite's own figures, and the control's sums."""
        figures = {field.name: getattr(self, field.name) for field in fields(self)}
        sums, seconds = figures.pop("sums"), figures.pop("seconds")
        return {
            "requests": sums.acknowledged,
            "lost": sums.lost,
            "duplicates": sums.duplicates,
            "state_wrong": sums.state_wrong,
            **figures,
            "control_requests": careless.acknowledged,
            "control_lost": careless.lost,
            "control_duplicates": careless.duplicates,
            "seconds": seconds,
        }


def count(bootstrap: str, prefix: str, acknowledged: set[str], topic: str = topics.RESULTS) -> Sums:
    """Read all results and the state from the beginning, and compare with what was acknowledged."""
    results = Counter(id_of(message) for message in read_all(bootstrap, prefix, topic))
    due = Counter(f"c{int(request_id[1:]) % CONVERSATIONS}" for request_id in acknowledged)
    counted: dict[str, int] = {}
    for message in read_all(bootstrap, prefix, topics.STATE_VAULTS):
        counted[message.key().decode()] = int(StateEntry.model_validate_json(message.value()).value)
    return Sums(
        acknowledged=len(acknowledged),
        results=sum(results.values()),
        lost=len(acknowledged - results.keys()),
        duplicates=sum(results.values()) - len(results),
        unknown=len(results.keys() - acknowledged),
        state_wrong=sum(counted.get(key, 0) != due[key] for key in due | counted),
    )


def wait_for_all(load: Load, watch: Watch, tails: Callable[[], str]) -> None:
    """Wait for a result of every request sent; what is missing after a long silence is counted as lost.

    Raises StackError where a request is not even acknowledged.
    """
    while load.waiting or load.acknowledged - watch.seen:
        if watch.since_last_s() > STUCK_S:
            if load.waiting:
                raise StackError(f"{load.waiting} requests were never acknowledged\n{tails()}")
            return
        time.sleep(0.2)


def show(figures: Mapping[str, object]) -> None:
    """A suite's figures as a table, and as the last line."""
    table = Table("what", "figure")
    for name, value in figures.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps(figures))


def id_of(message: Message) -> str:
    """The request id of a record."""
    value = dict(message.headers() or [])[header_names.REQUEST_ID]
    assert isinstance(value, bytes)
    return value.decode()
