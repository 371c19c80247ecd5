"""An unordered worker in a thread of the test, its events and its call log."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer
from tests.support.slow import NAME, CallLog
from tests.support.toy import Harness, in_thread

from penstock.contracts import headers as header_names
from penstock.contracts.events import GenerationParameters, RequestContext, RequestScreened, Source
from penstock.contracts.topics import CONTROL, SCREENED, STATE_CALLS
from penstock.runtime import kafka
from penstock.runtime.control import ControlReader
from penstock.runtime.health import Health
from penstock.runtime.intake import Lane
from penstock.runtime.ledger import Ledger
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.processor import Boundary
from penstock.runtime.publisher import Publisher
from penstock.runtime.settings import UnorderedSettings
from penstock.runtime.stage import UnorderedStage
from penstock.runtime.state import StateStore
from penstock.runtime.unordered import UnorderedWorker


class UnorderedHarness(Harness):
    """One installation whose inference is a stage of the test's own."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, **settings: object) -> None:
        super().__init__(bootstrap, prefix)
        self.settings: UnorderedSettings = UnorderedSettings.model_validate(
            {**self.settings.model_dump(), "rebalance_grace_s": 1.0, **settings}
        )
        self.log = CallLog(folder / "calls.log")

    def screened(
        self,
        ids: Sequence[str],
        *,
        conversation: str | None = None,
        tenant: str = "default",
        deadline_ms: int | None = None,
        partition: int | None = None,
    ) -> None:
        publish_screened(
            self.settings.kafka_bootstrap_servers,
            self.names.topic(SCREENED),
            ids,
            conversation=conversation,
            tenant=tenant,
            deadline_ms=deadline_ms,
            partition=partition,
        )

    @contextmanager
    def calling(
        self, stage: UnorderedStage, instance: str = "0", lanes: Sequence[Lane] = ()
    ) -> Iterator[tuple[UnorderedWorker, StageMetrics]]:
        stopping = threading.Event()
        metrics = StageMetrics(NAME)
        publisher = Publisher(kafka.producer(self.settings, self.names.transactional_id(NAME, instance)), self.names)
        publisher.start()
        notes = StateStore(
            self.names.topic(STATE_CALLS),
            kafka.reader(self.settings, "notes", committed=False),
            100_000,
        )
        notes.start()
        control = ControlReader(self.names.topic(CONTROL), kafka.reader(self.settings, "control"), max_entries=1_000)
        control.start()
        worker = UnorderedWorker(
            lanes=lanes or [Lane("interactive", (self.names.topic(SCREENED),), self.names.group(NAME))],
            stage=stage,
            settings=self.settings.model_copy(update={"instance": instance}),
            boundary=Boundary(stage, names=self.names, cancellations=control.cancellations),
            publisher=publisher,
            ledger=Ledger(kafka.producer(self.settings, None), STATE_CALLS, notes, self.names),
            metrics=metrics,
            health=Health(),
            stopping=stopping,
        )
        try:
            with in_thread(worker, stopping):
                yield worker, metrics
        finally:
            control.close()


def publish_screened(
    bootstrap: str,
    topic: str,
    ids: Sequence[str],
    *,
    conversation: str | None = None,
    tenant: str = "default",
    deadline_ms: int | None = None,
    partition: int | None = None,
) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for offset, request_id in enumerate(ids):
        context = RequestContext(
            request_id=request_id,
            conversation_id=conversation or request_id,
            tenant=tenant,
            deadline_ms=deadline_ms,
            submitted_ms=1,
            source=Source(topic="llm.requests", partition=0, offset=offset),
        )
        event = RequestScreened(context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))
        producer.produce(
            topic,
            key=context.conversation_id.encode(),
            value=event.encode(),
            headers=header_names.of_context(context, event.schema_ref()),
            **({} if partition is None else {"partition": partition}),
        )
        producer.poll(0)
    assert producer.flush(60) == 0, "events were not delivered"
