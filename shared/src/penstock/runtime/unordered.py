"""The loop of a stage whose records take long and finish in any order.

One thread polls, starts, collects and commits; the stage works in threads of its own. A transaction holds
the outputs of what has finished, wherever it stood in its partition, and for each partition the lowest
unfinished offset with a bitmap of what is finished ahead (`penstock.runtime.progress`). An aborted
transaction repeats no call: what has finished stays in memory until one succeeds.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from confluent_kafka import Consumer

from penstock.contracts.base import Message
from penstock.contracts.errors import Cancelled, PenstockError
from penstock.contracts.headers import RequestHeaders
from penstock.runtime import kafka
from penstock.runtime.admission import Admission
from penstock.runtime.backlog import Backlog
from penstock.runtime.calls import Call, Report, Work
from penstock.runtime.health import Health
from penstock.runtime.intake import Fresh, Intake, Lane
from penstock.runtime.ledger import Begun, Ledger, key_of
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Settled
from penstock.runtime.pace import Pace, passed
from penstock.runtime.processor import Boundary, Interrupted, deadline_of
from penstock.runtime.progress import Progress
from penstock.runtime.publisher import STUCK_AFTER_S, Publisher, Stuck
from penstock.runtime.retries import Delay, GiveUp, Policies, Wait
from penstock.runtime.settings import UnorderedSettings
from penstock.runtime.stage import Inbound, Outcome, UnorderedStage
from penstock.runtime.uncommitted import Finished, Uncommitted

_log = structlog.get_logger()

IDLE_S = 0.05
"""How long an empty topic is waited on where nothing runs."""
BUSY_S = 0.005
"""How long a report is waited for while calls run."""
STANDBY_AFTER_S = 15.0


class UnorderedWorker:
    """Runs one unordered stage over its lanes until told to stop."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        stage: UnorderedStage,
        settings: UnorderedSettings,
        boundary: Boundary,
        publisher: Publisher,
        ledger: Ledger | None,
        metrics: StageMetrics,
        health: Health,
        stopping: threading.Event,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        client: Callable[[dict[str, Any]], Consumer] = Consumer,
    ) -> None:
        self._stage = stage
        self._policies = Policies.of(settings)
        self._settings = settings
        self._boundary = boundary
        self._publisher = publisher
        self._ledger = ledger
        self._metrics = metrics
        self._health = health
        self._stopping = stopping
        self._clock_ns = clock_ns
        self._monotonic = monotonic
        self._intakes = [
            Intake(
                lane,
                kafka.consumer(settings, lane.group),
                client=client,
                stage=stage.name,
                metrics=metrics,
                max_span=settings.calls_max_span,
                assigned=self._assigned,
                revoked=self._revoked,
                lost=self._lost,
            )
            for lane in lanes
        ]
        self._backlog = Backlog(settings, lanes=len(lanes))
        self._uncommitted = Uncommitted(
            stage=stage.name,
            intakes=self._intakes,
            boundary=boundary,
            publisher=publisher,
            ledger=ledger,
            metrics=metrics,
            patience=self._patience,
            clock_ns=clock_ns,
            monotonic=monotonic,
        )
        self._admission = Admission(
            lowest=1, highest=settings.calls_max_running, target_s=settings.calls_first_output_ms / 1000
        )
        self._pace = Pace(stage.name)
        self._inbox: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._running: dict[Call, Work] = {}
        self._closing = False
        self._cancelled_to = boundary.cancellations

    def run(self) -> bool:
        """Work until stopped; True where nothing was left running. Raises Fenced, Stuck and KafkaException."""
        self.subscribe()
        try:
            with suppress(Interrupted):  # told to stop while the claim store was away: the record is read again
                self._loop()
            with suppress(Interrupted):
                self._drain(self._monotonic() + self._settings.shutdown_timeout_s)
        except Stuck:
            raise  # the client does not answer: closing it would not return either
        except BaseException:
            self._close()
            raise
        clean = not self._running
        self._close()
        return clean

    def subscribe(self) -> None:
        """Join the groups."""
        for intake in self._intakes:
            intake.subscribe()

    def _loop(self) -> None:
        subscribed = self._monotonic()
        while not self._stopping.is_set():
            self._health.beat()
            if not self._health.ready and self._monotonic() - subscribed > STANDBY_AFTER_S:
                self._health.ready = True
                _log.info("runtime.process.standing_by")
            self.turn()

    def turn(self) -> None:
        """Once around: take, start, hear, commit."""
        taken = self._take()
        self._expire()
        self._cancel()
        self._start_waiting()
        self._collect(0 if taken or not self._running else BUSY_S)
        self._uncommitted.commit()
        if self._ledger is not None:
            self._ledger.refresh()
        self._show()

    def _drain(self, until: float) -> None:
        """Finish what runs, start nothing new."""
        while self._running and self._monotonic() < until:
            self._health.beat()
            self._collect(BUSY_S)
            self._uncommitted.commit()
        while self._uncommitted and self._monotonic() < until:
            self._uncommitted.commit()
            time.sleep(BUSY_S)
        if self._running:
            _log.warning("runtime.shutdown.abandoned", records=len(self._running))

    def _close(self) -> None:
        self._closing = True
        for call in list(self._running):
            self._stage.cancel(call)
        self._stage.close()
        for intake in self._intakes:
            intake.close()
        self._publisher.close()
        if self._ledger is not None:
            self._ledger.close()

    # --- taking records

    def _take(self) -> int:
        wait_s = 0.0 if self._running or self._uncommitted or self._backlog.unstarted else IDLE_S
        taken = 0
        for intake in self._intakes:
            fresh = intake.take(min(self._backlog.room(intake.lane.name), self._settings.batch_max_records), wait_s)
            for one in fresh:
                self._open(one, intake)
            taken += len(fresh)
            wait_s = 0.0
        return taken

    def _open(self, fresh: Fresh, intake: Intake) -> None:
        inbound, early = self._boundary.open(fresh.record, self._clock_ns())
        if early is not None or inbound.event is None:
            assert early is not None, "only llm.requests has records without an event"
            self._uncommitted.add(Finished(self._settled(inbound, early, 1), fresh.progress))
            return
        context = inbound.event.context
        delayed = fresh.record.delayed
        before = 0 if delayed is None else delayed.attempts
        work = Work(inbound, fresh, key_of(context, RequestHeaders.parse(fresh.record.headers).attempt), before)
        self._backlog.put(work, intake.lane.name, context, running=len(self._running))

    # --- starting

    def _start_waiting(self) -> None:
        for work in self._backlog.due(self._monotonic()):
            self._start(work)
        while (room := min(self._stage.room(), self._admission.limit - len(self._running))) > 0:
            fresh = self._backlog.take(room, running=len(self._running))
            if fresh is None:
                return
            # where too few others wait for the room there is, it is tried all the same: the backend may have got faster
            others = self._backlog.unstarted >= room
            if others and (late := self._pace.too_late(fresh, self._clock_ns() // 1_000_000)) is not None:
                self._end(fresh, None, late)
            else:
                self._start(fresh)

    def _start(self, work: Work) -> None:
        found = self._ledger.find(work.ledger_key) if self._ledger is not None else None
        work.attempts += 1
        inbound = dataclasses.replace(work.inbound, now_ms=self._clock_ns() // 1_000_000)
        note = partial(self._ledger.answer, work.ledger_key) if self._ledger is not None else (lambda _: None)
        call = work.call = Call(inbound, self._inbox, note, self._monotonic)
        self._running[call] = work
        if isinstance(found, Message):
            self._metrics.ledger.labels(self._stage.name, "answered").inc()
            self._inbox.put(Report(call, found, call.began))
            return
        if isinstance(found, Begun) and work.attempts == 1:
            self._metrics.ledger.labels(self._stage.name, "repeated").inc()
            _log.warning("runtime.call.repeated", trace_id=inbound.trace_id)
        elif self._ledger is not None and work.attempts == 1:
            self._ledger.begin(work.ledger_key)
        try:
            self._stage.start(call)
        except PenstockError as error:
            call.finish(error)
        except Exception as error:  # noqa: BLE001  # any bug of a stage: logged, dead-lettered
            call.finish(self._boundary.bug(inbound, error))

    # --- collecting

    def _collect(self, wait_s: float) -> None:
        try:
            report = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            while True:
                self._hear(report)
                report = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _hear(self, report: Report) -> None:
        work = self._running.get(report.call)
        if work is None:  # cancelled, expired or abandoned meanwhile, or finished twice
            return
        if report.outcome is None:
            self._admission.first_output(report.at - report.call.began, running=len(self._running), now=report.at)
            return
        del self._running[report.call]
        work.call = None
        self._pace.ended(work, report.outcome, report.at - report.call.began)
        if isinstance(report.outcome, PenstockError) and report.outcome.retriable:
            self._admission.refused(self._monotonic())
            self._again(work, report.call, report.outcome)
        else:
            self._end(work, report.call, report.outcome)

    def _again(self, work: Work, call: Call, error: PenstockError) -> None:
        """Try the record once more, after a wait here or by way of the retry topic, or end it."""
        name = self._stage.name
        decision = self._policies.decide(
            error,
            attempts=work.before + work.attempts,
            now_ms=self._clock_ns() // 1_000_000,
            deadline_ms=deadline_of(work.inbound),
            delayable=self._boundary.delayable(work.inbound),
        )
        match decision:
            case Wait(ms):
                self._metrics.retries.labels(name, "in_place", error.code).inc()
                self._backlog.put_aside(work, self._monotonic() + ms / 1000)
            case Delay(not_before_ms):
                self._metrics.retries.labels(name, "delayed", error.code).inc()
                self._end(work, call, error, not_before_ms=not_before_ms)
            case GiveUp(end, exhausted):
                if exhausted:
                    self._metrics.exhausted.labels(name, error.code).inc()
                self._end(work, call, end)

    def _expire(self) -> None:
        for work, deadline_ms in self._backlog.expired(self._clock_ns() // 1_000_000):
            self._give_up(work, passed(self._stage.name, deadline_ms))

    def _cancel(self) -> None:
        """Give up what is cancelled, whether it runs or waits; looked for only where a command has come."""
        if self._boundary.cancellations == self._cancelled_to:
            return
        self._cancelled_to = self._boundary.cancellations
        errors: dict[Work, Cancelled] = {}
        asked: set[Work] = set()

        def cancelled(work: Work) -> bool:
            # asked once: the answer may change at any moment, and a record must not slip between two
            if work not in asked and work.inbound.event is not None:
                asked.add(work)
                if (error := self._boundary.cancelled(work.inbound.event.context)) is not None:
                    errors[work] = error
            return work in errors

        for work in self._backlog.drop_unstarted(cancelled):
            self._end(work, None, errors[work])
        for work in [*self._running.values(), *self._backlog.retries]:
            if cancelled(work):
                self._give_up(work, errors[work])

    def _give_up(self, work: Work, error: PenstockError) -> None:
        """End a record that waits or runs with an error of the runtime's own."""
        if work.ticket is None:
            return  # it has ended
        call = work.call
        if call is not None:
            del self._running[call]
            self._stage.cancel(call)
            self._pace.ended(work, error, self._monotonic() - call.began)
        else:
            self._backlog.remove(work)
        self._end(work, call, error)

    def _end(self, work: Work, call: Call | None, outcome: Outcome, *, not_before_ms: int | None = None) -> None:
        if work.ticket is not None:  # it was started, and is not one that waited
            self._backlog.done(work)
        work.call = None
        inbound = call.inbound if call is not None else work.inbound
        settled = self._settled(inbound, outcome, max(1, work.before + work.attempts), not_before_ms)
        ledger_key = work.ledger_key if work.attempts else None
        self._uncommitted.add(Finished(settled, work.fresh.progress, ledger_key))

    def _settled(self, inbound: Inbound, outcome: Outcome, attempts: int, not_before_ms: int | None = None) -> Settled:
        finished_ms = self._clock_ns() // 1_000_000
        self._metrics.duration.observe(max(0, finished_ms - inbound.now_ms) / 1000)
        if not_before_ms is not None and isinstance(outcome, PenstockError):
            return self._boundary.delay(inbound, outcome, attempts=attempts, not_before_ms=not_before_ms)
        settled = self._boundary.settle(inbound, outcome, finished_ms=finished_ms, attempts=attempts)
        if settled.status is not None:
            self._stage.ended(inbound, settled.status)
        return settled

    def _patience(self, waited_s: float) -> bool:
        """How long a transaction may take: told to stop, no longer than a call may."""
        self._health.beat()
        return waited_s < (self._settings.shutdown_timeout_s if self._stopping.is_set() else STUCK_AFTER_S)

    # --- partitions; these run inside `_take`

    def _assigned(self) -> None:
        if self._ledger is not None:
            self._ledger.catch_up()
        self._health.ready = True

    def _revoked(self, going: set[Progress]) -> None:
        """Still a member: what runs may finish within the grace period, the rest is given up without output."""
        self._backlog.drop(going)
        if self._closing:  # `_drain` was the grace period, and a consumer that closes takes part in no transaction
            self._abandon(going)
            return
        until = self._monotonic() + (0 if self._stopping.is_set() else self._settings.rebalance_grace_s)
        while any(work.fresh.progress in going for work in self._running.values()) and self._monotonic() < until:
            self._health.beat()
            self._collect(BUSY_S)
        self._uncommitted.hurry()
        self._uncommitted.commit()
        self._abandon(going)

    def _lost(self, going: set[Progress]) -> None:
        """No longer a member: another may own them already, so nothing is written."""
        self._backlog.drop(going)
        self._abandon(going)

    def _abandon(self, going: set[Progress]) -> None:
        left = [call for call, work in self._running.items() if work.fresh.progress in going]
        for call in left:
            work = self._running.pop(call)
            self._stage.cancel(call)
            self._backlog.done(work)
            work.call = None
        self._uncommitted.drop(going)
        if left:
            _log.info("runtime.calls.abandoned", calls=len(left))

    def _show(self) -> None:
        self._metrics.in_flight.labels(self._stage.name).set(len(self._running) + len(self._uncommitted))
        self._metrics.waiting.labels(self._stage.name).set(len(self._backlog))
        self._metrics.admission.labels(self._stage.name).set(self._admission.limit)
