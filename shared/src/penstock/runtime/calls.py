"""One record's way through an unordered stage, from delivery to the transaction that ends it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass

from penstock.contracts.base import Message
from penstock.runtime.intake import Fresh
from penstock.runtime.stage import Inbound, Outcome
from penstock.runtime.window import Ticket


@dataclass(eq=False, slots=True)
class Work:
    """A record that is ours and not settled yet."""

    inbound: Inbound
    fresh: Fresh
    ledger_key: str
    before: int = 0
    """Attempts made before the record was delayed."""
    attempts: int = 0
    ticket: Ticket[Work] | None = None
    """Its place in the window; None once it has ended or is no longer ours."""
    call: Call | None = None
    """The attempt that runs; None while the record waits."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a stage says of a call: its first output where there is no outcome, else its end."""

    call: Call
    outcome: Outcome | None
    at: float
    """Seconds of the worker's clock."""


class Call:
    """One attempt at a record: the Job that the stage is given."""

    def __init__(
        self,
        inbound: Inbound,
        inbox: queue.SimpleQueue[Report],
        note: Callable[[Message], None],
        monotonic: Callable[[], float],
    ) -> None:
        """`note` is given an answer at once, in the stage's thread, however busy the worker's is."""
        self.began = monotonic()
        self._monotonic = monotonic
        self._inbound = inbound
        self._inbox = inbox
        self._note = note

    @property
    def inbound(self) -> Inbound:
        """The record, its clock set to the start of this attempt."""
        return self._inbound

    def first_output(self) -> None:
        """See Job."""
        self._inbox.put(Report(self, None, self._monotonic()))

    def finish(self, outcome: Outcome) -> None:
        """See Job: only the first counts, since the worker forgets a call that has ended."""
        if isinstance(outcome, Message):
            self._note(outcome)
        self._inbox.put(Report(self, outcome, self._monotonic()))
