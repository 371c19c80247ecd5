"""Running a stage over a batch: decode, retry what may yet succeed, isolate what breaks it.

It knows neither consumer nor producer; the worker gives it records and publishes what it settles.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache

import structlog
from opentelemetry import trace
from pydantic import ValidationError

from penstock.contracts.errors import Expired, PenstockError, StageError
from penstock.contracts.events import Event
from penstock.contracts.headers import SCHEMA, schema_of
from penstock.contracts.topics import EVENTS
from penstock.runtime import telemetry
from penstock.runtime.kafka import Names
from penstock.runtime.logging import frames
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Settled, Settler
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Inbound, Outcome, Record, Stage, UnorderedStage

_log = structlog.get_logger()


class Interrupted(Exception):
    """The process is stopping: the batch is given up unfinished and will be read again."""


class Boundary:
    """Where records come into a stage and outcomes leave it: decoding, deadlines, spans, settling."""

    def __init__(
        self,
        stage: Stage | UnorderedStage,
        *,
        names: Names,
    ) -> None:
        self._names = names
        self._plain: dict[str, str] = {}
        self._stage_name = stage.name
        self._group = names.group(stage.name)
        self._settler = Settler(stage.name, stage.versions, names)

    def open(self, record: Record, start_ns: int) -> tuple[Inbound, PenstockError | None]:
        """The record as a stage is given it, and the error that ends it before any stage sees it."""
        topic = self._plain.get(record.topic) or self._plain.setdefault(record.topic, self._names.plain(record.topic))
        span = telemetry.start_process(record, topic, self._group, start_ns)
        now_ms = start_ns // 1_000_000
        kind = EVENTS.get(topic)
        if kind is None:
            return Inbound(record, now_ms, None, span), None
        try:
            event = decode(record, kind)
        except PenstockError as error:
            return Inbound(record, now_ms, None, span), error
        inbound = Inbound(record, now_ms, event, span)
        deadline = event.context.deadline_ms
        if deadline is not None and deadline < now_ms:
            return inbound, Expired(
                f"the deadline passed {inbound.now_ms - deadline} ms before stage {self._stage_name}; "
                "allow more time or send less at once",
                field="header deadline",
                limit=deadline,
            )
        return inbound, None

    def settle(self, inbound: Inbound, outcome: Outcome, *, finished_ms: int, attempts: int) -> Settled:
        """What is written for an outcome."""
        return self._settler.settle(inbound, outcome, finished_ms=finished_ms, attempts=attempts)

    def bug(self, inbound: Inbound, error: Exception) -> StageError:
        """An unexpected exception of the stage: logged here with its place, for the request a StageError."""
        with trace.use_span(inbound.span, record_exception=False, set_status_on_exception=False):
            _log.error(
                "runtime.record.unexpected_error",
                error_type=type(error).__name__,
                frames=frames(error),
                topic=inbound.record.topic,
                partition=inbound.record.partition,
                offset=inbound.record.offset,
            )
        return StageError(
            f"unexpected {type(error).__name__} in stage {self._stage_name}; the log of that stage has the place"
        )


class Processor(Boundary):
    """One stage over batches, its retries and its error isolation."""

    def __init__(
        self,
        stage: Stage,
        settings: ServiceSettings,
        *,
        names: Names,
        metrics: StageMetrics,
        stopping: threading.Event,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(stage, names=names)
        self._stage = stage
        self._settings = settings
        self._metrics = metrics
        self._stopping = stopping
        self._clock_ns = clock_ns

    def run(self, records: Sequence[Record]) -> list[Settled]:
        """Settle every record, in order; raises Interrupted where the process stops during a retry's wait."""
        start_ns = self._clock_ns()
        inbounds: list[Inbound] = []
        outcomes: list[Outcome | None] = []
        for record in records:
            inbound, early = self.open(record, start_ns)
            inbounds.append(inbound)
            outcomes.append(early)
        attempts = self._attempt_all(inbounds, outcomes)
        finished_ms = self._clock_ns() // 1_000_000
        settled = []
        for inbound, outcome, tries in zip(inbounds, outcomes, attempts, strict=True):
            assert outcome is not None
            settled.append(self.settle(inbound, outcome, finished_ms=finished_ms, attempts=tries))
        seconds = (self._clock_ns() - start_ns) / 1e9
        self._metrics.duration.observe(seconds, len(settled))
        return settled

    def _attempt_all(self, inbounds: list[Inbound], outcomes: list[Outcome | None]) -> list[int]:
        """Fill in the outcomes; returns the attempts each took."""
        tries = [1] * len(inbounds)
        todo = [index for index, outcome in enumerate(outcomes) if outcome is None]
        for attempt in range(1, self._settings.retry_attempts + 1):
            if not todo:
                break
            if attempt > 1:
                self._wait(attempt, len(todo))
            for index, outcome in zip(todo, self._process([inbounds[i] for i in todo]), strict=True):
                outcomes[index] = outcome
                tries[index] = attempt
            todo = [i for i in todo if isinstance(e := outcomes[i], PenstockError) and e.retriable]
        return tries

    def _wait(self, attempt: int, records: int) -> None:
        self._metrics.retries.labels(self._stage.name).inc(records)
        longest = min(self._settings.retry_backoff_max_ms, self._settings.retry_backoff_ms * 2 ** (attempt - 2))
        _log.warning("runtime.records.retry", attempt=attempt, records=records, backoff_max_ms=longest)
        if self._stopping.wait(random.uniform(longest / 2, longest) / 1000):
            raise Interrupted

    def _process(self, batch: list[Inbound]) -> Sequence[Outcome]:
        try:
            outcomes = self._stage.process(batch)
        except PenstockError as error:
            return [error] * len(batch)
        except Exception as error:  # noqa: BLE001  # any bug of a stage: isolated below, logged, dead-lettered
            if len(batch) > 1:
                _log.warning("runtime.batch.isolated", records=len(batch), error_type=type(error).__name__)
                return [self._process([inbound])[0] for inbound in batch]
            return [self.bug(batch[0], error)]
        if len(outcomes) != len(batch):
            wrong = StageError(f"{len(outcomes)} outcomes for {len(batch)} records", code="unexpected_outcome")
            return [wrong] * len(batch)
        return outcomes


@cache
def _own_schema(kind: type[Event]) -> str:
    return kind.schema_ref()


def decode(record: Record, kind: type[Event]) -> Event:
    """The event in a record; raises UnsupportedSchema, InvalidRequest or StageError, none quoting the value."""
    reference = schema_of(record.headers)
    if reference is not None and reference != _own_schema(kind):
        kind.accepts(reference)
    if record.value is None:
        raise StageError(f"a {kind.schema_name} record without a value", code="invalid_event", field="value")
    try:
        return kind.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise StageError(
            f"{where}: not a {kind.schema_ref()} ({first['type']}, {len(record.value)} bytes, "
            f"header {SCHEMA} {'present' if reference else 'absent'})",
            code="invalid_event",
            field=where,
        ) from None
