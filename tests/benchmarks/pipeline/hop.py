"""One hop as a process: `python -m tests.benchmarks.pipeline.hop KIND NAME`.

`penstock` is the runtime as services use it, `rated` the same with limits for tenants; `bare` is
confluent-kafka by hand, at least once; `faststream` is a handler as FastStream's documentation shows. Each
writes a line with `partitions.assigned` or `ready` to its log once it consumes.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from tests.benchmarks.pipeline import passing
from tests.benchmarks.pipeline.passing import BY_NAME, Hop

from penstock.contracts import topics
from penstock.contracts.base import Message
from penstock.contracts.events import RequestContext, RequestPreprocessed, Source
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.ingress import context_of
from penstock.contracts.request import CompletionRequest
from penstock.runtime import kafka
from penstock.runtime.app import serve
from penstock.runtime.kafka import Names
from penstock.runtime.settings import ServiceSettings, load
from penstock.runtime.stage import Inbound, Outcome
from penstock_preprocess.rates import Rate, Rates

READY = "ready"
TENANT_RATE = 15.0
"""Requests a second that the large tenant may send into the interactive lane."""
BARE_BATCH = 10_000
BARE_BUSY = 100
BARE_WAIT_S = 0.05


class PassOn:
    """A stage that does nothing else."""

    versions: ClassVar[dict[str, str]] = {"benchmark": "1"}

    def __init__(self, hop: Hop, rates: Rates | None = None) -> None:
        self.name = hop.name
        self._pass = hop.passing
        self._rates = rates

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        if self.name == "preprocess":
            return [self._first(inbound) for inbound in batch]
        if self.name == "postprocess":
            return [self._pass(inbound.event, inbound.now_ms) for inbound in batch]
        return [self._pass(inbound.event) for inbound in batch]

    def _first(self, inbound: Inbound) -> Message:
        record = inbound.record
        assert record.value is not None
        body = CompletionRequest.model_validate_json(record.value)
        context = context_of(
            RequestHeaders.parse(record.headers),
            Source(topic=record.topic, partition=record.partition, offset=record.offset),
            record.timestamp_ms,
            key=record.key,
            body_request_id=body.request_id,
        )
        if self._rates and context.priority != "bulk" and not self._rates.take(context.tenant, 0, context.submitted_ms):
            context = context.model_copy(update={"priority": "bulk", "requested_priority": context.priority})
        return self._pass(body, context)


def penstock(hop: Hop, settings: ServiceSettings) -> int:
    """The runtime: settings decide delivery, batches and cadence."""
    finished = topics.STATE_FINISHED if hop.produces == topics.RESULTS else None
    return serve(settings, name=hop.name, consumes=(hop.consumes,), build=lambda _: PassOn(hop), finished=finished)


def rated(hop: Hop, settings: ServiceSettings) -> int:
    """The same, with a rate for the large tenant in the first hop, as preprocess has it."""
    rates = Rates(Rate(), {"large": Rate(requests=TENANT_RATE)}, burst_s=1)
    return serve(settings, name=hop.name, consumes=(hop.consumes,), build=lambda _: PassOn(hop, rates))


def bare(hop: Hop, settings: ServiceSettings) -> int:
    """Batches as they come, outputs flushed before offsets are committed; no headers, telemetry or retries."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    names = Names(settings.topic_prefix)
    consumer = Consumer({**kafka.consumer(settings, names.group(hop.name)), "statistics.interval.ms": 0})
    producer = Producer({**kafka.producer(settings, None), "enable.idempotence": False})
    handle = _by_hand(hop)
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Any) -> None:
        if error is not None:
            failures.append(error)

    source, sink = names.topic(hop.consumes), names.topic(hop.produces)
    consumer.subscribe([source], on_assign=lambda *_: print(READY, flush=True))
    last = 0
    while not stop.is_set():
        message = consumer.poll(0.2)
        if message is None:
            last = 0
            continue
        patience = BARE_WAIT_S if last >= BARE_BUSY else 0
        messages = [message, *consumer.consume(BARE_BATCH - 1, patience)]
        messages = [one for one in messages if one.error() is None]
        last = len(messages)
        offsets: dict[int, int] = {}
        for one in messages:
            producer.produce(sink, handle(one).encode(), one.key(), on_delivery=delivered)
            offsets[one.partition()] = one.offset() + 1
        producer.flush()
        if failures:
            raise SystemExit(f"delivery failed: {failures[0].name()}")
        partitions = [TopicPartition(source, number, offset) for number, offset in offsets.items()]
        consumer.commit(offsets=partitions, asynchronous=False)
    consumer.close()
    return 0


def _by_hand(hop: Hop) -> Callable[[Any], Message]:
    kind, forward = hop.kind, hop.passing

    def first(message: Any) -> Message:
        body = kind.model_validate_json(message.value())
        assert isinstance(body, CompletionRequest)
        source = Source(topic=message.topic(), partition=message.partition(), offset=message.offset())
        return forward(body, _context(body, source, message.timestamp()[1]))

    def middle(message: Any) -> Message:
        return forward(kind.model_validate_json(message.value()))

    def last(message: Any) -> Message:
        return forward(kind.model_validate_json(message.value()), time.time_ns() // 1_000_000)

    return {"preprocess": first, "postprocess": last}.get(hop.name, middle)


def _context(body: CompletionRequest, source: Source, submitted_ms: int) -> RequestContext:
    assert body.request_id is not None
    return RequestContext(
        request_id=body.request_id, conversation_id=body.request_id, submitted_ms=submitted_ms, source=source
    )


def faststream(hop: Hop, settings: ServiceSettings) -> int:
    """A handler for each message, acknowledged after it: at least once."""
    import uvloop
    from faststream import AckPolicy, FastStream
    from faststream.kafka import KafkaBroker

    names = Names(settings.topic_prefix)
    broker = KafkaBroker(settings.kafka_bootstrap_servers.split(","), acks="all", logger=None)

    async def preprocess(body: CompletionRequest) -> RequestPreprocessed:
        source = Source(topic=hop.consumes, partition=0, offset=0)
        return passing.preprocess(body, _context(body, source, time.time_ns() // 1_000_000))

    async def anonymize(event: passing.RequestPreprocessed) -> passing.RequestAnonymized:
        return passing.anonymize(event)

    async def safety(event: passing.RequestAnonymized) -> passing.RequestScreened:
        return passing.screen(event)

    async def inference(event: passing.RequestScreened) -> passing.CompletionGenerated:
        return passing.infer(event)

    async def postprocess(event: passing.CompletionGenerated) -> passing.RequestFinished:
        return passing.postprocess(event, time.time_ns() // 1_000_000)

    handlers: dict[str, Any] = {
        handler.__name__: handler for handler in (preprocess, anonymize, safety, inference, postprocess)
    }
    publisher = broker.publisher(names.topic(hop.produces))
    subscriber = broker.subscriber(
        names.topic(hop.consumes),
        group_id=names.group(hop.name),
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        isolation_level="read_committed",
    )
    subscriber(publisher(handlers[hop.name]))
    app = FastStream(broker)

    @app.after_startup
    async def up() -> None:
        while not subscriber.consumer or not subscriber.consumer.assignment():  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.05)
        print(READY, flush=True)

    uvloop.run(app.run())
    return 0


KINDS: dict[str, Callable[[Hop, ServiceSettings], int]] = {
    "penstock": penstock,
    "rated": rated,
    "bare": bare,
    "faststream": faststream,
}


if __name__ == "__main__":
    sys.exit(KINDS[sys.argv[1]](BY_NAME[sys.argv[2]], load(ServiceSettings)))
