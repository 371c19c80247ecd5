"""Driving an unordered stage without a worker: jobs that remember what they were told."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from penstock.runtime.stage import Inbound, Outcome, UnorderedStage

PATIENCE_S = 60.0


class MemoryJob:
    """Implements `penstock.runtime.stage.Job`."""

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound
        self._changed = threading.Condition()
        self.firsts = 0
        self.outcomes: list[Outcome] = []

    @property
    def inbound(self) -> Inbound:
        return self._inbound

    def first_output(self) -> None:
        with self._changed:
            self.firsts += 1
            self._changed.notify_all()

    def finish(self, outcome: Outcome) -> None:
        with self._changed:
            self.outcomes.append(outcome)
            self._changed.notify_all()

    @property
    def outcome(self) -> Outcome:
        """The one outcome."""
        (outcome,) = self.outcomes
        return outcome

    def wait(self) -> Outcome:
        """The outcome, once it has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.outcomes), PATIENCE_S), "the job was not finished"
        return self.outcomes[0]

    def wait_first(self) -> None:
        """Return once there is output."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.firsts), PATIENCE_S), "the job has no output"


class InBatches:
    """An unordered stage as one that takes batches, for suites that run a path in one process."""

    def __init__(self, stage: UnorderedStage) -> None:
        self._stage = stage

    @property
    def name(self) -> str:
        return self._stage.name

    @property
    def versions(self) -> Mapping[str, str]:
        return self._stage.versions

    def close(self) -> None:
        self._stage.close()

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        outcomes = []
        for inbound in batch:
            job = MemoryJob(inbound)
            self._stage.start(job)
            outcomes.append(job.wait())
        return outcomes
