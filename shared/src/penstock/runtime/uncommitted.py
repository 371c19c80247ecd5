"""What has finished in an unordered stage, until the transaction that publishes it is through.

A transaction holds all of it and where the partitions stand; after an aborted one it is kept, and tried again a
little later. What a transaction is, `publisher` knows.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import structlog
from confluent_kafka import TopicPartition

from penstock.runtime.accounting import account
from penstock.runtime.intake import Intake
from penstock.runtime.ledger import Ledger
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Settled
from penstock.runtime.processor import Boundary
from penstock.runtime.progress import Progress
from penstock.runtime.publisher import Aborted, Publisher, TooLarge

_log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """Settled and not yet committed."""

    settled: Settled
    progress: Progress
    ledger_key: str | None = None
    """Of the note to delete, where a call was made."""


class Uncommitted:
    """The finished records of all lanes, and the transactions that end them."""

    def __init__(
        self,
        *,
        stage: str,
        intakes: Sequence[Intake],
        boundary: Boundary,
        publisher: Publisher,
        ledger: Ledger | None,
        metrics: StageMetrics,
        patience: Callable[[float], bool],
        clock_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """`patience` says whether to wait on for a transaction after so many seconds."""
        self._stage = stage
        self._intakes = intakes
        self._boundary = boundary
        self._publisher = publisher
        self._ledger = ledger
        self._metrics = metrics
        self._patience = patience
        self._clock_ns = clock_ns
        self._monotonic = monotonic
        self._finished: list[Finished] = []
        self._not_before = 0.0
        """After an abort: when to try again."""
        self._aborts = 0
        self._singly = False
        """After the broker refused records for their size: send one at a time, to find which."""

    def __len__(self) -> int:
        return len(self._finished)

    def add(self, finished: Finished) -> None:
        """Note that a record is done; its outputs go into the next transaction."""
        finished.progress.finish(finished.settled.inbound.record.offset)
        self._finished.append(finished)

    def drop(self, going: set[Progress]) -> None:
        """Forget what finished in these partitions: they are another's, who will do it again."""
        self._finished = [one for one in self._finished if one.progress not in going]

    def hurry(self) -> None:
        """Let the next `commit` try at once, whatever became of the last one."""
        self._not_before = 0.0

    def commit(self) -> None:
        """Publish what has finished and where the partitions stand; after an abort, again a little later.

        Raises Fenced, Stuck and KafkaException as the publisher does.
        """
        if not self._finished or self._monotonic() < self._not_before:
            return
        checkpoints = [(intake, intake.checkpoints()) for intake in self._intakes]
        positions = [
            (intake.consumer, [TopicPartition(*slot, at.offset, at.metadata) for slot, at in moved.items()])
            for intake, moved in checkpoints
            if moved
        ]
        outputs = [output for one in self._finished for output in one.settled.outputs]
        started = self._monotonic()
        try:
            self._publisher.commit(outputs, {}, positions, self._patience, singly=self._singly)
        except TooLarge as error:
            self._metrics.transactions.labels(self._stage, "aborted").inc()
            instead = self._boundary.refuse(
                [one.settled for one in self._finished], error.outputs, finished_ms=self._clock_ns() // 1_000_000
            )
            self._finished = [
                dataclasses.replace(one, settled=settled) for one, settled in zip(self._finished, instead, strict=True)
            ]
            self._singly = True
            return
        except Aborted as error:
            self._aborts += 1
            self._not_before = self._monotonic() + random.uniform(0.5, 1) * min(2.0, 0.1 * 2**self._aborts)
            self._metrics.transactions.labels(self._stage, "aborted").inc()
            _log.warning("runtime.transaction.aborted", reason=error.reason, records=len(self._finished))
            return
        self._aborts = 0
        self._singly = False
        self._metrics.commit_duration.labels(self._stage).observe(self._monotonic() - started)
        self._metrics.transactions.labels(self._stage, "committed").inc()
        for intake, moved in checkpoints:
            intake.committed(moved)
        if self._ledger is not None:
            self._ledger.forget(one.ledger_key for one in self._finished if one.ledger_key)
        account(self._metrics, self._stage, [one.settled for one in self._finished])
        self._finished = []
