"""The consume-transform-produce loop of a stage.

The loop's thread polls and commits; the stage runs in a second thread, so that polling never stops
however long a batch takes; only small interactive batches of a quick stage are settled in the loop's own (`quick`),
for latency. What "committed" means is the publisher's to say, what a record becomes
the processor's; this module decides when, and who still owns the partitions.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from penstock.contracts.events import Priority
from penstock.runtime import kafka, offsets
from penstock.runtime.access import NOT_AUTHORIZED
from penstock.runtime.accounting import account
from penstock.runtime.batches import Batch, BatchSize, Slot, patience_s, slot_of
from penstock.runtime.claims import has_claim
from penstock.runtime.gate import Gate
from penstock.runtime.health import Health
from penstock.runtime.kafka import Names
from penstock.runtime.lag import show_lag
from penstock.runtime.lanes import CURRENT
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Settled
from penstock.runtime.processor import Hurried, Interrupted, Processor
from penstock.runtime.publisher import STUCK_AFTER_S, Aborted, Publisher, Stuck, TooLarge
from penstock.runtime.quick import Quick
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.state import StateStore

_log = structlog.get_logger()

POLL_S = 0.1
INLINE_S = 0.2
"""While a batch takes longer, polling goes on; the next batch's records are kept meanwhile."""
PAUSE_AFTER_S = 2.0
"""A batch that takes longer still has its partitions paused: the client drops what it had fetched ahead."""
STANDBY_AFTER_S = 15.0
"""An instance beyond the number of partitions gets none: it is ready, and stands by."""
TAKEN_AT_ONCE = 500
NO_MEMBER = ("UNKNOWN_MEMBER_ID", "FENCED_MEMBER_EPOCH", "FENCED_INSTANCE_ID")
"""Why a transaction was aborted: the partitions are another's by now, which the next poll tells."""
BATCH_BYTES = 16_777_216
"""No more is taken once the values of a batch come to this."""


class Worker:
    """Runs one stage over its topics of one lane until told to stop."""

    def __init__(
        self,
        *,
        name: str,
        topics: list[str],
        settings: ServiceSettings,
        processor: Processor,
        publisher: Publisher,
        states: dict[str, StateStore],
        metrics: StageMetrics,
        health: Health,
        stopping: threading.Event,
        lane: Priority = "interactive",
        gate: Gate | None = None,
    ) -> None:
        """`gate` is what the lanes of this process share; None where the lane is alone."""
        self._name = name
        self._lane = lane
        self._gate = gate
        self._topics = topics
        self._settings = settings
        self._processor = processor
        self._publisher = publisher
        self._states = states
        self._metrics = metrics
        self._health = health
        self._stopping = stopping
        config = kafka.consumer(settings, Names(settings.topic_prefix).group(name, lane))
        self._consumer = Consumer({**config, "stats_cb": self._statistics, "error_cb": kafka.ErrorLog()})
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix=f"stage-{lane}", initializer=CURRENT.set, initargs=(lane,)
        )
        self._owned: set[Slot] = set()
        self._batch: Batch | None = None
        self._future: Future[list[Settled]] | None = None
        self._paused = False
        self._closing = False
        self._leaving = False
        self._stash: list[Message] = []
        self._last_size = 0
        self._size = BatchSize(settings.batch_max_records, settings.batch_target_ms / 1000)
        self._quick = Quick()
        self._idle = False
        self._positions: dict[Slot, int] = {}

    def run(self) -> bool:
        """Work until stopped; True where nothing was left running. Raises Fenced, Stuck and KafkaException."""
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            self._loop()
        except Stuck:
            raise  # the client does not answer: closing it would not return either
        except BaseException:
            self._close()
            raise
        return self._close()

    def _loop(self) -> None:
        subscribed = time.monotonic()
        while not self._stopping.is_set():
            self._health.beat()
            if not self._health.ready and time.monotonic() - subscribed > STANDBY_AFTER_S:
                self._health.ready = True
                _log.info("runtime.process.standing_by")
            messages = self._take()
            if messages and self._gate is not None and self._lane == "interactive":
                with self._gate.interactive():
                    self._turn(Batch(messages))
            elif messages:
                self._turn(Batch(messages))

    def _close(self) -> bool:
        self._closing = True
        clean = self._future is None or self._future.done()
        self._consumer.close()
        self._publisher.close()
        self._executor.shutdown(wait=clean, cancel_futures=True)
        return clean

    # --- taking messages

    def _take(self) -> list[Message]:
        stash, self._stash = self._stash, []
        messages = stash or self._keep([m] if (m := self._consumer.poll(POLL_S)) is not None else [])
        if messages:
            self._fill(messages, patience_s(self._settings, self._lane, self._last_size))
        self._last_size = len(messages)
        self._idle = not messages
        # a rebalance may have come in between: what is no longer ours is its new owner's
        return [message for message in messages if slot_of(message) in self._owned]

    def _fill(self, messages: list[Message], patience: float) -> None:
        """Take what there is up to a batch; `patience` seconds for it to come."""
        until, size = time.monotonic() + patience, sum(map(len, messages))
        while (room := min(TAKEN_AT_ONCE, self._size.records - len(messages))) > 0 and size < BATCH_BYTES:
            more = self._consumer.consume(room, timeout=max(0.0, until - time.monotonic()))
            messages += self._keep(more)
            size += sum(map(len, more))
            if len(more) < room:
                return

    def _keep(self, messages: list[Message]) -> list[Message]:
        kept = []
        for message in messages:
            error = message.error()
            if error is None:
                kept.append(message)
            elif kafka.is_fatal(error) or error.code() in NOT_AUTHORIZED:
                raise KafkaException(error)
            else:
                _log.warning("runtime.consume.error", error=error.name(), topic=message.topic())
        return kept

    # --- one batch

    def _turn(self, batch: Batch) -> None:
        self._batch = batch
        self._metrics.in_flight.labels(self._name).inc(len(batch))
        for state in self._states.values():
            state.refresh()
        try:
            work: Callable[[], list[Settled]] = partial(self._work, batch)
            if self._inline(batch):
                try:
                    settled = self._timed(
                        partial(self._processor.run, kafka.Arrivals(batch.messages), hurried=True), batch
                    )
                except Hurried as pause:
                    work = pause.rest
                else:
                    if not self._commit(batch, settled):
                        self._rewind(batch)
                    return
            self._future = self._executor.submit(self._timed, work, batch)
            if not self._wait_polling(batch):
                return
            if batch.committed:
                return
            settled = self._future.result()
            if batch.abandoned or not self._commit(batch, settled):
                self._rewind(batch)
        except Interrupted:
            _log.info("runtime.batch.interrupted", records=len(batch))
        finally:
            self._batch = None
            self._metrics.in_flight.labels(self._name).dec(len(batch))

    def _inline(self, batch: Batch) -> bool:
        """Whether the batch is settled in the loop's own thread: where latency matters, and it is known to be quick."""
        if self._lane != "interactive" or not self._quick.expects(len(batch), sum(map(len, batch.messages))):
            return False
        return not self._settings.claim_store or not any(has_claim(kafka.headers_of(one)) for one in batch.messages)

    def _timed(self, work: Callable[[], list[Settled]], batch: Batch) -> list[Settled]:
        began = time.monotonic()
        settled = work()
        self._took(time.monotonic() - began, len(batch))
        return settled

    def _took(self, seconds: float, records: int) -> None:
        self._size.took(seconds, records)
        self._quick.took(seconds, records)

    def _work(self, batch: Batch) -> list[Settled]:
        """Settle the records; those of the bulk lane a slice at a time, so that interactive ones come between."""
        records = kafka.Arrivals(batch.messages)
        if self._gate is None or self._lane == "interactive":
            return self._processor.run(records)
        return [
            one for piece in self._gate.slices(records, lambda: self._leaving) for one in self._processor.run(piece)
        ]

    def _wait_polling(self, batch: Batch) -> bool:
        """Wait for the stage, polling all the while; False where the process stops before it is done."""
        assert self._future is not None
        if wait_for([self._future], INLINE_S).done:
            return True
        pause_at = time.monotonic() + PAUSE_AFTER_S - INLINE_S
        give_up: float | None = None
        while not self._future.done():
            self._health.beat()
            if self._stopping.is_set():
                give_up = give_up or time.monotonic() + self._settings.shutdown_timeout_s
                if time.monotonic() > give_up:
                    _log.warning("runtime.shutdown.abandoned", records=len(batch))
                    return False
            if not self._paused and time.monotonic() > pause_at:
                self._pause(sorted(self._owned))
            room = min(TAKEN_AT_ONCE, self._size.records - len(self._stash))
            if (room > 0 and sum(map(len, self._stash)) < BATCH_BYTES) or self._paused:
                self._stash += self._keep(self._consumer.consume(max(1, room), POLL_S / 2))
            else:
                wait_for([self._future], POLL_S / 2)
        if self._paused:
            self._resume()
        return True

    def _commit(self, batch: Batch, settled: list[Settled]) -> bool:
        """Publish and commit; False where the batch has to be given up."""
        writes = {topic: state.pending() for topic, state in self._states.items()}
        singly = False
        attempt = 0
        while attempt < self._settings.retry_attempts:
            attempt += 1
            started = time.monotonic()
            outputs = [output for one in settled for output in one.outputs]
            try:
                written = self._publisher.commit(
                    outputs, writes, [(self._consumer, batch.offsets())], self._patience, singly=singly
                )
            except TooLarge as error:
                self._metrics.transactions.labels(self._name, "aborted").inc()
                if batch.abandoned:
                    return False
                settled = self._processor.refuse(settled, error.outputs, finished_ms=time.time_ns() // 1_000_000)
                attempt -= bool(error.outputs)  # one cause less each time: not an attempt at the same thing
                singly = True
                continue
            except Aborted as error:
                self._metrics.transactions.labels(self._name, "aborted").inc()
                _log.warning("runtime.transaction.aborted", reason=error.reason, attempt=attempt, records=len(settled))
                if batch.abandoned or attempt == self._settings.retry_attempts or error.reason in NO_MEMBER:
                    return False
                time.sleep(random.uniform(0.5, 1) * min(2.0, 0.1 * 2**attempt))
                continue
            self._metrics.commit_duration.labels(self._name).observe(time.monotonic() - started)
            self._committed(batch, settled, written)
            return True
        return False

    def _patience(self, waited_s: float) -> bool:
        """How long a transaction may take: told to stop, no longer than a batch may."""
        self._health.beat()
        return waited_s < (self._settings.shutdown_timeout_s if self._stopping.is_set() else STUCK_AFTER_S)

    def _committed(self, batch: Batch, settled: list[Settled], written: dict[str, dict[str, int]]) -> None:
        batch.committed = True
        self._positions.update({slot: offset + 1 for slot, offset in batch.last.items()})
        for topic, state in self._states.items():
            state.commit(written[topic])
        self._metrics.transactions.labels(self._name, "committed").inc()
        account(self._metrics, self._name, settled)

    def _rewind(self, batch: Batch) -> None:
        """Go back to where the batch began, in the partitions that are still ours."""
        for state in self._states.values():
            state.rollback()
        mine = {slot: offset for slot, offset in batch.first.items() if slot in self._owned}
        self._stash = [message for message in self._stash if slot_of(message) not in mine]
        for (topic, number), offset in mine.items():
            self._consumer.seek(TopicPartition(topic, number, offset))
        _log.warning("runtime.batch.rewound", records=len(batch), partitions=len(mine))
        time.sleep(random.uniform(0.05, 0.2))

    # --- partitions

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing:  # the group's last word to a member that leaves: nothing of it is taken
            consumer.incremental_assign(partitions)
            return
        # until no dead owner's transaction is open on them: then its state writes are readable. The client would wait
        # for it, too, and say nothing of one that nobody will ever end
        offsets.committed(consumer, partitions)
        for state in self._states.values():
            state.catch_up()
        consumer.incremental_assign(partitions)
        slots = [(p.topic, p.partition) for p in partitions]
        self._owned.update(slots)
        # a partition that left while it was paused still is: the client keeps that
        (consumer.pause if self._paused else consumer.resume)([TopicPartition(*slot) for slot in slots])
        self._health.ready = True
        self._metrics.rebalances.labels(self._name, "assigned").inc()
        _log.info("runtime.partitions.assigned", count=len(partitions), owned=len(self._owned))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Still a member: the batch in flight may finish within the grace period; else its work is given up."""
        batch, future = self._batch, self._future
        slots = {(p.topic, p.partition) for p in partitions}
        if batch is not None and future is not None and not batch.committed and slots & batch.first.keys():
            self._leaving = True  # what the grace period is for is not to be spent at the gate
            wait_for([future], 0 if self._stopping.is_set() else self._settings.rebalance_grace_s)
            self._leaving = False
            if future.done() and future.exception() is None and self._commit(batch, future.result()):
                _log.info("runtime.batch.committed_on_revoke", records=len(batch))
            else:
                batch.abandoned = True
        self._forget(consumer, partitions, "revoked")

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """No longer a member: another may own them already, so nothing is written."""
        if self._batch is not None and {(p.topic, p.partition) for p in partitions} & self._batch.first.keys():
            self._batch.abandoned = True
        self._forget(consumer, partitions, "lost")

    def _forget(self, consumer: Consumer, partitions: list[TopicPartition], kind: str) -> None:
        slots = {(p.topic, p.partition) for p in partitions}
        self._owned -= slots
        for slot in slots:
            self._positions.pop(slot, None)
        self._stash = [message for message in self._stash if slot_of(message) not in slots]
        consumer.incremental_unassign(partitions)
        for topic, number in slots:
            self._metrics.lag.remove_by_labels({"topic": topic, "partition": str(number)})
        self._metrics.rebalances.labels(self._name, kind).inc()
        _log.info(f"runtime.partitions.{kind}", count=len(partitions), owned=len(self._owned))

    def _pause(self, slots: list[Slot]) -> None:
        self._paused = True
        self._consumer.pause([TopicPartition(*slot) for slot in slots])

    def _resume(self) -> None:
        self._paused = False
        # those first that gave nothing to this batch: what the first ones give may fill the next
        served = self._batch.first if self._batch is not None else {}
        again = sorted(self._owned, key=lambda slot: (slot in served, slot))
        self._consumer.resume([TopicPartition(*slot) for slot in again])

    def _statistics(self, text: str) -> None:
        positions = {slot: self._positions.get(slot) for slot in self._owned}
        show_lag(self._metrics, self._name, text, positions, idle=self._idle)
