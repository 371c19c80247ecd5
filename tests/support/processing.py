"""A toy stage under the real processor, without a broker: batches in, settled records out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from penstock.contracts import headers as names_of
from penstock.contracts.errors import InvalidRequest, RetriableError
from penstock.contracts.events import (
    GenerationParameters,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    Source,
)
from penstock.contracts.topics import PREPROCESSED
from penstock.runtime.cancellations import Cancellations
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.processor import Processor
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Inbound, Outcome, Record

NOW_MS = 1_700_000_000_000
Act = Callable[[str], Exception | None]


PASSED = ["llm.anonymized"]
"""What comes of a record that passes."""


class Toy:
    """Passes each event on, unless `act` says otherwise: an exception that is raised for the whole batch."""

    name = "toy"

    def __init__(self, act: Act = lambda _: None) -> None:
        self.versions = {"toy": "1"}
        self.batches: list[list[str]] = []
        self._act = act

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        events = [inbound.expect(RequestPreprocessed) for inbound in batch]
        self.batches.append([event.context.request_id for event in events])
        outcomes: list[Outcome] = []
        for event in events:
            error = self._act(event.context.request_id)
            if isinstance(error, InvalidRequest | RetriableError):
                outcomes.append(error)
                continue
            if error is not None:
                raise error
            outcomes.append(RequestAnonymized(context=event.context, prompt=(), parameters=event.parameters))
        return outcomes


class Bench:
    def __init__(self, stage: Any, cancellations: Cancellations | None = None, **settings: Any) -> None:
        self.stopping = threading.Event()
        self.metrics = StageMetrics("toy")
        settings = {"retry_backoff_ms": 1, "retry_backoff_max_ms": 1} | settings
        self.processor = Processor(
            stage,
            ServiceSettings(**settings),
            names=Names("p."),
            metrics=self.metrics,
            stopping=self.stopping,
            cancellations=cancellations,
            clock_ns=lambda: NOW_MS * 1_000_000,
        )

    def run(self, *records: Record) -> list[list[str]]:
        """For each record the topics written, with the error's code after a slash."""
        return [
            [f"{output.topic}/{one.code}" if one.code else output.topic for output in one.outputs]
            for one in self.processor.run(records)
        ]


def record(request_id: str, *, deadline_ms: int | None = None, **changes: Any) -> Record:
    context = RequestContext(
        request_id=request_id,
        conversation_id=request_id,
        deadline_ms=deadline_ms,
        submitted_ms=NOW_MS - 10,
        source=Source(topic="p.llm.requests", partition=0, offset=0),
    )
    event = RequestPreprocessed(context=context, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1))
    fields: dict[str, Any] = {
        "topic": f"p.{PREPROCESSED}",
        "partition": 0,
        "offset": 1,
        "timestamp_ms": NOW_MS - 5,
        "key": request_id.encode(),
        "value": event.encode(),
        "headers": tuple(names_of.of_context(context, event.schema_ref())),
    }
    return Record(**fields | changes)
