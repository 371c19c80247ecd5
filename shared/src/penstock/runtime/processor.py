"""Running a stage over a batch: decode, retry what may yet succeed, isolate what breaks it.

Short waits are made here, the batch held; a record that has to wait longer leaves by way of the retry topic.

It knows neither consumer nor producer; the worker gives it records and publishes what it settles.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
from opentelemetry import trace

from penstock.contracts.claims import CLAIM
from penstock.contracts.errors import (
    BackendUnavailable,
    Cancelled,
    Expired,
    InvalidRequest,
    PenstockError,
    RetriableError,
    StageError,
)
from penstock.contracts.events import Event, RequestContext
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.lanes import base_of, lane_of
from penstock.contracts.topics import EVENTS
from penstock.runtime import telemetry
from penstock.runtime.cancellations import Cancellations
from penstock.runtime.claims import Claims
from penstock.runtime.decoding import decode
from penstock.runtime.detour import Detour
from penstock.runtime.kafka import Names
from penstock.runtime.logging import frames
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Output, Settled, Settler
from penstock.runtime.retries import Delay, GiveUp, Policies, Wait, late
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Inbound, Outcome, Record, Stage, UnorderedStage

_log = structlog.get_logger()

PORTION = 64
"""Most records that a stage is given at once, while all goes well."""


class Interrupted(Exception):
    """The process is stopping: the batch is given up unfinished and will be read again."""


class Hurried(Exception):
    """A batch that may not wait would have to, before a retry. `rest` waits and goes on, where that may be done."""

    def __init__(self, rest: Callable[[], list[Settled]]) -> None:
        super().__init__()
        self.rest = rest


class Boundary:
    """Where records come into a stage and outcomes leave it: decoding, cancellations, deadlines, spans, settling."""

    def __init__(
        self,
        stage: Stage | UnorderedStage,
        *,
        names: Names,
        cancellations: Cancellations | None = None,
        claims: Claims | None = None,
        detour: Detour | None = None,
    ) -> None:
        self._names = names
        self._inputs: dict[str, tuple[str, str, type[Event] | None]] = {}
        self._cancellations = cancellations
        self._claims = claims or Claims()
        self._stage_name = stage.name
        self._settler = Settler(stage.name, stage.versions, names, self._claims, detour)

    def open(self, record: Record, start_ns: int) -> tuple[Inbound, Outcome | None]:
        """The record as a stage is given it, and the outcome, if any, that it has before a stage sees it."""
        topic, group, kind = self._inputs.get(record.topic) or self._input(record.topic)
        span = telemetry.start_process(record, topic, group, start_ns)
        if (delayed := record.delayed) is not None:
            telemetry.annotate(span, {telemetry.ATTEMPTS_BEFORE: delayed.attempts})
        now_ms = start_ns // 1_000_000
        if not record.headers_readable:
            return Inbound(record, now_ms, None, span), InvalidRequest(
                "headers: a name among them is not UTF-8", code="invalid_header", field="headers", limit="UTF-8 names"
            )
        if CLAIM in record.named:
            try:
                record = self._claims.opened(record, topic)
            except PenstockError as error:
                return Inbound(record, now_ms, None, span), error
        if kind is None:
            return Inbound(record, now_ms, None, span), None
        try:
            event = decode(record, kind)
        except PenstockError as error:
            return Inbound(record, now_ms, None, span), error
        inbound = Inbound(record, now_ms, event, span)
        cancelled = self.cancelled(event.context)
        if cancelled is not None:
            return inbound, cancelled
        deadline = event.context.deadline_ms
        if deadline is not None and deadline < now_ms:
            return inbound, Expired(
                f"the deadline passed {inbound.now_ms - deadline} ms before stage {self._stage_name}{_after(record)}; "
                "allow more time or send less at once",
                field="header deadline",
                limit=deadline,
            )
        return inbound, None

    def _input(self, name: str) -> tuple[str, str, type[Event] | None]:
        """Of a topic on the broker: its declared name, the group that reads it, what it carries."""
        topic = self._names.plain(name)
        known = topic, self._names.group(self._stage_name, lane_of(topic)), EVENTS.get(base_of(topic))
        return self._inputs.setdefault(name, known)

    def settle(self, inbound: Inbound, outcome: Outcome, *, finished_ms: int, attempts: int) -> Settled:
        """What is written for an outcome; no event where the request has been cancelled meanwhile."""
        if isinstance(outcome, Event):
            outcome = self.cancelled(outcome.context) or outcome
        settled = self._settler.settle(inbound, outcome, finished_ms=finished_ms, attempts=attempts)
        return settled if inbound.record.in_topic is None else settled.without_claimed()

    def refuse(self, settled: Sequence[Settled], outputs: Sequence[Output], *, finished_ms: int) -> list[Settled]:
        """The same with an error in place of what the broker refused for its size."""
        refused = {id(output) for output in outputs}
        return [
            self._settler.too_large(one, refused, finished_ms=finished_ms)
            if any(id(output) in refused for output in one.outputs)
            else one
            for one in settled
        ]

    def delayable(self, inbound: Inbound) -> bool:
        """Whether `delay` can be chosen for the record."""
        return self._settler.delayable(inbound)

    def delay(self, inbound: Inbound, error: PenstockError, *, attempts: int, not_before_ms: int) -> Settled:
        """What is written for a record that is tried again later; `attempts` were made in all."""
        settled = self._settler.delay(inbound, error, attempts=attempts, not_before_ms=not_before_ms)
        return settled if inbound.record.in_topic is None else settled.without_claimed()

    def cancelled(self, context: RequestContext) -> Cancelled | None:
        """The error that ends a request that is cancelled; None where it may go on."""
        return None if self._cancellations is None else self._cancellations.error(context)

    @property
    def cancellations(self) -> int:
        """Grows whenever `cancelled` may have another answer than before."""
        return 0 if self._cancellations is None else self._cancellations.generation

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


@dataclass(slots=True)
class _Batch:
    """Records under way, all lists in their order."""

    inbounds: list[Inbound] = field(default_factory=list)
    outcomes: list[Outcome | None] = field(default_factory=list)
    tries: list[int] = field(default_factory=list)
    """Attempts made, those before a delay included."""
    due: dict[int, int] = field(default_factory=dict)
    """Of those that go through the retry topic: index -> milliseconds since the epoch."""


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
        cancellations: Cancellations | None = None,
        detour: Detour | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(
            stage,
            names=names,
            cancellations=cancellations,
            claims=claims_of(stage.name, settings, metrics, stopping),
            detour=detour,
        )
        self._stage = stage
        self._policies = Policies.of(settings)
        self._metrics = metrics
        self._stopping = stopping
        self._clock_ns = clock_ns
        self._untroubled = True
        self._hurried = False

    def run(self, records: Sequence[Record], *, hurried: bool = False) -> list[Settled]:
        """Settle every record, in order; raises Interrupted where the process stops during a retry's wait.

        Raises Hurried in place of such a wait where the caller is `hurried`.

        A few at a time, so that a record's events are gone before the next one's are made: memory that is
        used again at once is twice as fast. From the first retry on, what is left goes together, to wait once.
        """
        self._hurried = hurried
        return self._all(records, [])

    def _all(self, records: Sequence[Record], settled: list[Settled]) -> list[Settled]:
        while len(settled) < len(records):
            size = PORTION if self._untroubled else len(records)
            for portion in self._claims.portions(records[len(settled) : len(settled) + size]):
                try:
                    settled += self._run(portion)
                except Hurried as pause:
                    raise Hurried(partial(self._all_after, pause.rest, records, settled)) from None
        self._untroubled = True
        return settled

    def _all_after(
        self, rest: Callable[[], list[Settled]], records: Sequence[Record], settled: list[Settled]
    ) -> list[Settled]:
        self._hurried = False
        return self._all(records, settled + rest())

    def _run(self, records: Sequence[Record]) -> list[Settled]:
        start_ns = self._clock_ns()
        batch = _Batch()
        for record in records:
            inbound, early = self.open(record, start_ns)
            batch.inbounds.append(inbound)
            batch.outcomes.append(early)
            batch.tries.append(0 if (before := record.delayed) is None else before.attempts)
        return self._finish(batch, start_ns, {})

    def _finish(self, batch: _Batch, start_ns: int, waits: dict[int, int]) -> list[Settled]:
        """Attempt what has no outcome yet, or what waits for its next attempt; then settle all."""
        if waits and self._hurried:
            raise Hurried(partial(self._finish, batch, start_ns, waits))
        todo = self._wait(batch, waits) if waits else [i for i, outcome in enumerate(batch.outcomes) if outcome is None]
        if more := self._attempt(batch, todo):
            return self._finish(batch, start_ns, more)
        finished_ms = self._clock_ns() // 1_000_000
        settled = [self._settle(batch, index, finished_ms) for index in range(len(batch.inbounds))]
        for inbound in batch.inbounds:
            inbound.event = None
        seconds = (self._clock_ns() - start_ns) / 1e9
        self._metrics.duration.observe(seconds, len(settled))
        return settled

    def _settle(self, batch: _Batch, index: int, finished_ms: int) -> Settled:
        inbound, outcome, attempts = batch.inbounds[index], batch.outcomes[index], batch.tries[index]
        assert outcome is not None
        if index in batch.due and isinstance(outcome, PenstockError):
            return self.delay(inbound, outcome, attempts=attempts, not_before_ms=batch.due[index])
        # of what was refused unread no attempt was made, and it is counted as one
        return self.settle(inbound, outcome, finished_ms=finished_ms, attempts=max(1, attempts))

    def _attempt(self, batch: _Batch, todo: list[int]) -> dict[int, int]:
        """Fill in outcomes and attempts, and when those are due that wait longer; returns the waits in place."""
        if todo:
            for index, outcome in zip(todo, self._process([batch.inbounds[i] for i in todo]), strict=True):
                batch.outcomes[index] = outcome
                batch.tries[index] += 1
        return {index: ms for index in todo if (ms := self._decide(batch, index)) is not None}

    def _decide(self, batch: _Batch, index: int) -> int | None:
        """How long to wait in place before the next attempt at a record, in milliseconds; None where it ends here."""
        error, inbound = batch.outcomes[index], batch.inbounds[index]
        if not isinstance(error, RetriableError):
            return None
        decision = self._policies.decide(
            error,
            attempts=batch.tries[index],
            now_ms=self._clock_ns() // 1_000_000,
            deadline_ms=deadline_of(inbound),
            delayable=self.delayable(inbound),
        )
        match decision:
            case Wait(ms):
                self._metrics.retries.labels(self._stage.name, "in_place", error.code).inc()
                return ms
            case Delay(not_before_ms):
                self._metrics.retries.labels(self._stage.name, "delayed", error.code).inc()
                batch.due[index] = not_before_ms
            case GiveUp(end, exhausted):
                batch.outcomes[index] = end
                if exhausted:
                    self._metrics.exhausted.labels(self._stage.name, error.code).inc()
        return None

    def _wait(self, batch: _Batch, waits: dict[int, int]) -> list[int]:
        """Wait for the longest of them, since they go on together; returns those still in time."""
        self._untroubled = False
        longest = max(waits.values())
        _log.warning("runtime.records.retry", records=len(waits), wait_ms=longest)
        if self._stopping.wait(longest / 1000):
            raise Interrupted
        now_ms = self._clock_ns() // 1_000_000
        todo = []
        for index in waits:
            deadline, error = deadline_of(batch.inbounds[index]), batch.outcomes[index]
            if deadline is not None and deadline < now_ms and isinstance(error, PenstockError):
                batch.outcomes[index] = late(error, attempts=batch.tries[index], deadline_ms=deadline)
            else:
                todo.append(index)
        return todo

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


def deadline_of(inbound: Inbound) -> int | None:
    """When the request expires, milliseconds since the epoch."""
    if inbound.event is not None:
        return inbound.event.context.deadline_ms
    return RequestHeaders.salvage(inbound.record.headers).deadline_ms


def _after(record: Record) -> str:
    """For an error text: that the record had waited, and why."""
    delayed = record.delayed
    return "" if delayed is None else f", after {delayed.attempts} attempts, the last error {delayed.code}"


def claims_of(stage: str, settings: ServiceSettings, metrics: StageMetrics, stopping: threading.Event) -> Claims:
    """A stage's claim check; waits between attempts at its store raise Interrupted where the process stops."""

    policy = Policies.of(settings).of_class(BackendUnavailable.policy)

    def waiting(attempt: int) -> None:
        metrics.retries.labels(stage, "in_place", "claim_store_unavailable").inc()
        wait_ms = policy.wait_ms(attempt - 1, None)
        _log.warning("runtime.records.retry", records=1, wait_ms=wait_ms)
        if stopping.wait(wait_ms / 1000):
            raise Interrupted

    return Claims.open(
        settings.claim_store,
        threshold=settings.claim_threshold_bytes,
        most=settings.claim_max_bytes,
        attempts=policy.attempts,
        waiting=waiting,
        counted=lambda operation: metrics.claims.labels(stage, operation).inc(),
    )
