"""The five stages in one process, each built by its own composition root, without a broker.

Records go from stage to stage as the runtime's processor settles them; state and streamed tokens stay
in memory. What needs transactions, offsets or processes belongs to the suites on a real broker.
"""

from __future__ import annotations

import importlib
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.jobs import InBatches
from tests.support.kafka import Publishing
from tests.support.memory import MemoryState

from penstock.contracts import topics
from penstock.contracts.events import TokensGenerated
from penstock.contracts.results import RequestFinished
from penstock.runtime.app import Resources
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Output
from penstock.runtime.processor import Processor
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Inbound, Record, State, TokenSink, UnorderedStage

READS = {
    sibling: service
    for name, service in {
        topics.REQUESTS: "preprocess",
        topics.PREPROCESSED: "anonymize",
        topics.ANONYMIZED: "safety",
        topics.SCREENED: "inference",
        topics.COMPLETIONS: "safety",
        topics.SCREENED_COMPLETIONS: "postprocess",
    }.items()
    for sibling in topics.siblings(name)
}
"""Topic -> the service that reads it, in the order of the path."""


@dataclass
class MemoryTokens:
    """Keeps what was streamed."""

    sent: list[TokensGenerated] = field(default_factory=list)

    def send(self, tokens: TokensGenerated, inbound: Inbound) -> None:
        assert inbound.event is not None
        self.sent.append(tokens)

    def when_delivered(self, request_id: str, then: Callable[[], None]) -> None:
        then()


class MemoryResources(Resources):
    """What a composition root asks for, without a broker."""

    def __init__(self, settings: ServiceSettings, names: Names, service: str) -> None:
        super().__init__(settings, names, service)
        self.streamed = MemoryTokens()
        self._memory: defaultdict[str, MemoryState] = defaultdict(MemoryState)

    def state(self, topic: str) -> State:
        return self._memory[topic]

    @property
    def tokens(self) -> TokenSink:
        return self.streamed


@dataclass
class Journey:
    """What one request came to: the records written to each topic on its way."""

    outputs: dict[str, list[Output]] = field(default_factory=lambda: defaultdict(list))

    @property
    def result(self) -> RequestFinished:
        """The one terminal result."""
        (output,) = self.outputs[topics.RESULTS]
        assert output.value is not None
        return RequestFinished.model_validate_json(output.value)


class Pipeline:
    """The five services' stages, ready to be sent requests."""

    def __init__(self, **own: Any) -> None:
        """`own` are settings of any service, by field name; each service takes those it has."""
        self._names = Names("")
        self._offsets: defaultdict[str, int] = defaultdict(int)
        self.resources: dict[str, MemoryResources] = {}
        self._processors: dict[str, Processor] = {}
        self._unordered: list[InBatches] = []
        for service in dict.fromkeys(READS.values()):
            own = {"models_dir": Path("no-registry"), **own}
            settings_class: type[ServiceSettings] = importlib.import_module(f"penstock_{service}.settings").Settings
            settings = settings_class(**{name: own[name] for name in own if name in settings_class.model_fields})
            resources = MemoryResources(settings, self._names, service)
            stage = importlib.import_module(f"penstock_{service}.app").build(settings, resources)
            if isinstance(stage, UnorderedStage):
                stage = InBatches(stage)
                self._unordered.append(stage)
            assert stage.name == service
            self.resources[service] = resources
            self._processors[service] = Processor(
                stage, settings, names=self._names, metrics=StageMetrics(service), stopping=threading.Event()
            )

    def close(self) -> None:
        """End the threads of its stages."""
        for stage in self._unordered:
            stage.close()

    def run(self, request: Publishing, *, now_ms: int) -> Journey:
        """Send one request down the path until nothing is left to do."""
        journey = Journey()
        entry = topics.in_lane(topics.REQUESTS, request.lane)
        todo = [self._record(entry, request.key, request.value, request.headers, now_ms)]
        while todo:
            record = todo.pop(0)
            for settled in self._processors[READS[record.topic]].run([record]):
                for output in settled.outputs:
                    journey.outputs[output.topic].append(output)
                    if output.topic in READS:
                        todo.append(self._record(output.topic, output.key, output.value, output.headers, now_ms))
        return journey

    def _record(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        now_ms: int,
    ) -> Record:
        offset = self._offsets[topic]
        self._offsets[topic] += 1
        return Record(
            topic=topic, partition=0, offset=offset, timestamp_ms=now_ms, key=key, value=value, headers=tuple(headers)
        )


def headers_of(output: Output) -> Mapping[str, bytes | None]:
    """A record's headers by name."""
    return dict(output.headers)
