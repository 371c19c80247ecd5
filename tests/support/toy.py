"""A stage that does what a test says, run by a real worker on a real broker."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from penstock.contracts import headers as header_names
from penstock.contracts.errors import BackendUnavailable, InvalidRequest
from penstock.contracts.events import (
    GenerationParameters,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    Source,
)
from penstock.contracts.topics import PREPROCESSED, STATE_VAULTS
from penstock.runtime import kafka
from penstock.runtime.health import Health
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.processor import Processor
from penstock.runtime.publisher import Publisher
from penstock.runtime.settings import ServiceSettings, hasty
from penstock.runtime.stage import Inbound, Outcome, State
from penstock.runtime.state import StateStore
from penstock.runtime.unordered import UnorderedWorker
from penstock.runtime.worker import Worker


class Toy:
    """Passes events on; what it does with each is the test's to say."""

    name = "toy"
    versions: ClassVar[dict[str, str]] = {"toy": "1"}

    def __init__(self, act: Callable[[Inbound], None] = lambda _: None, state: State | None = None) -> None:
        self._act = act
        self._state = state

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for inbound in batch:
            event = inbound.expect(RequestPreprocessed)
            try:
                self._act(inbound)
            except (BackendUnavailable, InvalidRequest) as error:
                outcomes.append(error)
                continue
            if self._state is not None:
                key = event.context.conversation_id
                self._state.put(key, str(int(self._state.get(key) or 0) + 1))
            outcomes.append(RequestAnonymized(context=event.context, prompt=(), parameters=event.parameters))
        return outcomes


class Harness:
    """One installation under a prefix: publish events, run workers, read what was committed."""

    def __init__(self, bootstrap: str, prefix: str, **own: Any) -> None:
        """`own` are settings that a test wants otherwise."""
        usual: dict[str, Any] = {"retry_backoff_ms": 10, "shutdown_timeout_s": 2}
        self.settings = ServiceSettings(kafka_bootstrap_servers=bootstrap, topic_prefix=prefix, **{**usual, **own})
        self.names = Names(prefix)
        self.metrics = StageMetrics("toy")
        self.health = Health()

    def publish(self, ids: Sequence[str], conversation: str | None = None, deadline_ms: int | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.settings.kafka_bootstrap_servers})
        for offset, request_id in enumerate(ids):
            context = RequestContext(
                request_id=request_id,
                conversation_id=conversation or request_id,
                submitted_ms=1,
                deadline_ms=deadline_ms,
                source=Source(topic="llm.requests", partition=0, offset=offset),
            )
            event = RequestPreprocessed(
                context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1)
            )
            producer.produce(
                self.names.topic(PREPROCESSED),
                key=context.conversation_id.encode(),
                value=event.encode(),
                headers=header_names.of_context(context, event.schema_ref()),
            )
        assert producer.flush(60) == 0, "events were not delivered"

    def store(self) -> StateStore:
        topic = self.names.topic(STATE_VAULTS)
        return StateStore(topic, kafka.reader(self.settings, "toy-state"), 1000)

    @contextmanager
    def working(self, stage: Toy, instance: str = "0", states: Sequence[StateStore] = ()) -> Iterator[Worker]:
        stopping = threading.Event()
        settings = self.settings.model_copy(update={"instance": instance})
        transactional_id = None if hasty(settings, "interactive") else self.names.transactional_id("toy", instance)
        publisher = Publisher(kafka.producer(settings, transactional_id), self.names)
        publisher.start()
        for state in states:
            state.start()
        worker = Worker(
            name="toy",
            topics=[self.names.topic(PREPROCESSED)],
            settings=settings,
            processor=Processor(stage, settings, names=self.names, metrics=self.metrics, stopping=stopping),
            publisher=publisher,
            states={state.topic: state for state in states},
            metrics=self.metrics,
            health=self.health,
            stopping=stopping,
        )
        with in_thread(worker, stopping):
            yield worker
        for state in states:
            state.close()

    def read(self, topic: str, expected: int, seconds: float = 90) -> list[Message]:
        """What a read_committed consumer sees: at least `expected` records, and any that come soon after."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka_bootstrap_servers,
                "group.id": "reader",
                "isolation.level": "read_committed",
            }
        )
        name = self.names.topic(topic)
        parts = consumer.list_topics(name, timeout=60).topics[name].partitions
        consumer.assign([TopicPartition(name, number, 0) for number in parts])
        found: list[Message] = []
        until = time.monotonic() + seconds
        while len(found) < expected and time.monotonic() < until:
            found += [m for m in consumer.consume(1000, 0.2) if m.error() is None]
        found += [m for m in consumer.consume(1000, 0.5) if m.error() is None]
        consumer.close()
        return found


@contextmanager
def in_thread(worker: Worker | UnorderedWorker, stopping: threading.Event) -> Iterator[None]:
    """Run a worker until the end of the block; fails where the worker did."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  # handed to the test's thread, which fails on it
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()
        assert not failures, failures


def ids_of(messages: Sequence[Message]) -> Counter[str]:
    return Counter(dict(m.headers() or [])["request-id"].decode() for m in messages)
