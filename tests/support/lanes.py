"""A toy stage in both lanes of one process, as `serve` runs them, on a real broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Producer
from tests.support.toy import Harness, Toy

from penstock.contracts import headers as header_names
from penstock.contracts.events import GenerationParameters, Priority, RequestContext, RequestPreprocessed, Source
from penstock.contracts.lanes import LANES
from penstock.contracts.topics import PREPROCESSED, in_lane
from penstock.runtime import kafka, lanes
from penstock.runtime.gate import Gate
from penstock.runtime.health import Health
from penstock.runtime.processor import Processor
from penstock.runtime.publisher import Publisher
from penstock.runtime.state import StateStore
from penstock.runtime.worker import Worker


class LaneHarness(Harness):
    """A `Harness` whose events have a lane."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        super().__init__(bootstrap, prefix)
        self.stopping = threading.Event()
        self._producer = Producer({"bootstrap.servers": bootstrap})

    def publish(
        self,
        ids: Sequence[str],
        conversation: str | None = None,
        *,
        lane: Priority = "interactive",
        flush: bool = True,
    ) -> None:
        """Events into a lane's topic."""
        for request_id in ids:
            context = RequestContext(
                request_id=request_id,
                conversation_id=conversation or request_id,
                priority=lane,
                submitted_ms=1,
                source=Source(topic="llm.requests", partition=0, offset=0),
            )
            event = RequestPreprocessed(
                context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1)
            )
            self._producer.produce(
                self.names.topic(in_lane(PREPROCESSED, lane)),
                key=context.conversation_id.encode(),
                value=event.encode(),
                headers=header_names.of_context(context, event.schema_ref()),
            )
            self._producer.poll(0)
        if flush:
            self.flush()

    def flush(self) -> None:
        """Wait until all is delivered."""
        assert self._producer.flush(60) == 0

    @contextmanager
    def both(self, stage: Toy, states: Sequence[StateStore] = (), gate: Gate | None = None) -> Iterator[None]:
        """Run the stage in both lanes."""
        gate = gate or Gate(share=0.1, quiet_s=0.01, slice_s=0.005, stopping=self.stopping)
        for state in states:
            state.start()

        def worker(lane: Priority) -> Worker:
            publisher = Publisher(
                kafka.producer(self.settings, self.names.transactional_id("toy", "0", lane)), self.names
            )
            publisher.start()
            return Worker(
                name="toy",
                topics=[self.names.topic(in_lane(PREPROCESSED, lane))],
                settings=self.settings,
                processor=Processor(
                    stage, self.settings, names=self.names, metrics=self.metrics, stopping=self.stopping
                ),
                publisher=publisher,
                states={state.topic: state for state in states},
                metrics=self.metrics,
                health=Health(),
                stopping=self.stopping,
                lane=lane,
                gate=gate,
            )

        runs = {lane: worker(lane).run for lane in LANES}
        ended: dict[Priority, lanes.Ended] = {}
        thread = threading.Thread(target=lambda: ended.update(lanes.run(runs, self.stopping)))
        thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            thread.join(60)
            assert not thread.is_alive()
            assert not [end.error for end in ended.values() if end.error is not None], ended
            for state in states:
                state.close()
