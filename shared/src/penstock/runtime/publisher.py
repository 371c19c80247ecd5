"""Writing a batch's outputs, state and offsets: in one transaction, or at least once where that is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from penstock.contracts.base import Message as Contract
from penstock.runtime.access import NOT_AUTHORIZED
from penstock.runtime.kafka import Names, enqueue
from penstock.runtime.outcomes import Output

_log = structlog.get_logger()
Positions = Sequence[tuple[Any, list[TopicPartition]]]
"""Each consumer whose group's offsets are committed, with the offsets."""
Groups = Sequence[tuple[Any, list[TopicPartition]]]
"""Likewise, with the group's metadata instead of the consumer."""

CALL_TIMEOUT_S = 30.0
OFFSETS_TIMEOUT_S = 5.0
STUCK_AFTER_S = 3 * CALL_TIMEOUT_S
"""The client's calls have time limits of their own; one that outlives this has been lost inside it."""

DELIVERY_CHECK_S = 0.1
BATCH_BYTES = 1_000_000
"""The client's `batch.size`."""


class Stuck(Exception):
    """A call into the client does not return: the process must end without another one."""


class Fenced(Exception):
    """Another process has taken this slot's transactional id, or the producer is beyond repair: stop."""


class Aborted(Exception):
    """The transaction was aborted: nothing of it is visible. It may be tried again while the partitions are ours."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooLarge(Aborted):
    """The broker takes fewer bytes than the topic declares. `outputs` cannot be written.

    It is empty where they shared their batches with others: only what is sent singly tells them apart.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        super().__init__("MSG_SIZE_TOO_LARGE")
        self.outputs = outputs


class Publisher:
    """One producer. `commit` is all or nothing with transactions; without, outputs come before offsets."""

    def __init__(self, config: dict[str, Any], names: Names) -> None:
        self._producer = Producer(config)
        self._names = names
        self._transactional = "transactional.id" in config
        self._failed: KafkaError | None = None
        self._refused: list[Output] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")

    def start(self) -> None:
        """Fence what an earlier process of this slot left open; raises KafkaException where no broker answers."""
        if self._transactional:
            try:
                self._producer.init_transactions(CALL_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].fatal() and error.args[0].code() not in NOT_AUTHORIZED:
                    raise Fenced(error.args[0].name()) from None
                raise

    def commit(
        self,
        outputs: Sequence[Output],
        state: Mapping[str, Mapping[str, Contract]],
        positions: Positions,
        patience: Callable[[float], bool] = lambda waited: waited < STUCK_AFTER_S,
        *,
        singly: bool = False,
    ) -> dict[str, dict[str, int]]:
        """Publish and commit; returns where each state key was written: topic -> key -> offset.

        `patience` says whether to wait on after so many seconds. Raises Aborted (try again or give the batch
        up), TooLarge (not again with its outputs; `singly` finds them), Fenced (stop), Stuck (stop at once) or
        KafkaException where an ACL refuses (stop).
        """
        if not self._transactional:
            written = self._commit(outputs, state, (), singly, patience)
            self._commit_offsets(positions)
            return written
        # a consumer is asked by the thread that polls it: inside a rebalance, another's call would wait for that
        # poll to end, and the poll for us
        groups = [(consumer.consumer_group_metadata(), offsets) for consumer, offsets in positions]
        # in a thread of its own, so that a call that never returns costs neither signals nor the liveness check
        future = self._thread.submit(self._commit, outputs, state, groups, singly, lambda _: True)
        began = time.monotonic()
        while not wait_for([future], 0.5).done:
            if not patience(time.monotonic() - began):
                raise Stuck
        return future.result()

    def _commit(
        self,
        outputs: Sequence[Output],
        state: Mapping[str, Mapping[str, Contract]],
        groups: Groups,
        singly: bool,
        patience: Callable[[float], bool],
    ) -> dict[str, dict[str, int]]:
        written: dict[str, dict[str, int]] = {topic: {} for topic in state}
        self._failed = None
        self._refused = []
        self._producer.poll(0)
        names: dict[str, str] = {}
        try:
            if self._transactional:
                self._producer.begin_transaction()
            for output in outputs:
                # a transaction does not commit where one of its records failed, and an ACL refuses whole topics: the
                # first of each tells why; without transactions each has to be heard of
                report = self._delivered if not self._transactional or output.topic not in names else None
                topic = names.get(output.topic) or names.setdefault(output.topic, self._names.topic(output.topic))
                enqueue(
                    self._producer,
                    topic,
                    output.value,
                    output.key,
                    headers=output.headers,
                    on_delivery=self._deliverer(output) if singly or _alone(output) else report,
                    partition=output.partition,
                    timestamp_ms=output.timestamp_ms,
                )
                if singly:
                    self._deliver(patience)
            for topic, entries in state.items():
                for key, entry in entries.items():
                    recorder = self._recorder(written[topic], key)
                    enqueue(self._producer, topic, entry.encode(), key.encode(), headers=[], on_delivery=recorder)
            if self._transactional:
                self._commit_transaction(groups)
            else:
                self._deliver(patience)
        except KafkaException as error:
            self._recover(error.args[0])
        return written

    def _deliverer(self, output: Output) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                self._refused.append(output)
            self._delivered(error, message)

        return delivered

    def close(self) -> None:
        """Give up what is open."""
        try:
            self._producer.flush(5)
        except KafkaException as error:
            # beyond repair, which its last call has said: that error must not be hidden behind this one
            _log.debug("runtime.producer.unflushed", error=error.args[0].name())
        self._thread.shutdown()

    def _commit_transaction(self, groups: Groups) -> None:
        for group, offsets in groups:
            send = partial(self._producer.send_offsets_to_transaction, offsets, group, OFFSETS_TIMEOUT_S)
            self._insist(send)
        self._deliver()
        self._insist(lambda: self._producer.commit_transaction(CALL_TIMEOUT_S))

    def _commit_offsets(self, positions: Positions) -> None:
        for consumer, offsets in positions:
            try:
                consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                cause = error.args[0]
                if cause.fatal() or cause.code() in NOT_AUTHORIZED:
                    self._recover(cause)
                # the outputs are out: a later commit covers them, or another owner repeats them
                _log.warning("runtime.offsets.uncommitted", reason=cause.name())

    def _deliver(self, patience: Callable[[float], bool] = lambda _: True) -> None:
        """Wait until all is delivered, or the first record is refused; raises KafkaException, Stuck at patience's end.

        Committing would wait for the rest, which is no longer sent, until the broker has ended the transaction
        by its own time limit and fences the producer.
        """
        began = time.monotonic()
        while left := self._producer.flush(DELIVERY_CHECK_S):
            if self._failed is not None:
                break
            waited_s = time.monotonic() - began
            if not patience(waited_s):
                raise Stuck
            if waited_s > CALL_TIMEOUT_S:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{left} records not delivered"))
        if self._failed is not None:
            raise KafkaException(self._failed)

    @staticmethod
    def _insist(call: Callable[[], None], attempts: int = 5) -> None:
        # a retriable error leaves the transaction as it was: the same call may be made again
        for attempt in range(attempts):
            try:
                call()
            except KafkaException as error:
                if not error.args[0].retriable() or attempt == attempts - 1:
                    raise
                time.sleep(min(2.0, 0.1 * 2**attempt))
            else:
                return

    def _recover(self, error: KafkaError) -> None:
        refused = error.code() in NOT_AUTHORIZED
        if error.fatal():
            raise (KafkaException(error) if refused else Fenced(error.name())) from None
        if self._transactional:
            # the client may hold on to what it no longer sends, past the broker's own limit for the transaction
            self._producer.purge()
            try:
                self._insist(lambda: self._producer.abort_transaction(CALL_TIMEOUT_S))
            except KafkaException as second:
                if refused:  # where an ACL refused the first partition, the broker knows of no transaction to abort
                    raise KafkaException(error) from None
                raise Fenced(f"{error.name()}, then {second.args[0].name()} on abort") from None
        if refused:
            raise KafkaException(error) from None
        codes = {error.code(), None if self._failed is None else self._failed.code()}
        if KafkaError.MSG_SIZE_TOO_LARGE in codes:
            raise TooLarge(self._refused) from None
        raise Aborted(error.name()) from None

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            if self._failed is None or self._failed.code() != KafkaError.MSG_SIZE_TOO_LARGE:
                self._failed = error  # what follows a refusal is purged: the cause is the one to tell
            _log.debug("runtime.delivery.failed", topic=message.topic(), error=error.name())

    def _recorder(self, offsets: dict[str, int], key: str) -> Any:
        def record(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._delivered(error, message)
            else:
                offsets[key] = message.offset()

        return record


def _alone(output: Output) -> bool:
    """Whether a record is larger than the client's batches, so that what the broker says of it is about it alone."""
    return len(output.value or b"") >= BATCH_BYTES
