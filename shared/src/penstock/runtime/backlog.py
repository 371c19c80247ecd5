"""What waits in an unordered stage: in the window for a first call, or aside for another one; and all deadlines.

How many may wait is bounded by count, and bulk leaves a share to interactive records. One thread owns it. What
runs, and what becomes of a record that is taken out, the worker decides.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

from penstock.contracts.events import Priority, RequestContext
from penstock.runtime.calls import Work
from penstock.runtime.progress import Progress
from penstock.runtime.settings import UnorderedSettings
from penstock.runtime.window import Ticket, Window

QUANTUM_BYTES = 4_096
"""What a tenant's turn is worth, in bytes of events, the measure of a call's cost."""
ROOM_AGAIN = 0.75
"""A full window is filled again once it has shrunk to this share: pausing throws away what was fetched ahead."""

ENDED_KEPT = 16
"""Records that have ended and whose deadlines are still kept, at most so many beside as many as have not ended."""


class Backlog:
    """Records that are ours, are not settled and do not run. A record's ticket is None once it has left for good."""

    def __init__(self, settings: UnorderedSettings, *, lanes: int) -> None:
        self._settings = settings
        self._lanes = lanes
        self._window: Window[Work] = Window(settings.calls_tenant_weights, QUANTUM_BYTES)
        self._retries: list[tuple[float, int, Work]] = []
        self._deadlines: list[tuple[int, int, Work]] = []
        self._tie = itertools.count()
        self._full: set[Priority] = set()

    def __len__(self) -> int:
        return len(self._window) + len(self._retries)

    @property
    def unstarted(self) -> int:
        """How many wait for their first call."""
        return len(self._window)

    @property
    def retries(self) -> list[Work]:
        """Those that wait for another call."""
        return [work for _, _, work in self._retries]

    def room(self, lane: Priority) -> int:
        """How many more records of a lane may be taken; bulk leaves a share of the window to interactive ones."""
        most = self._settings.calls_max_waiting
        if lane == "bulk":
            most = max(1, int(most * (1 - self._settings.calls_interactive_share)))
        waiting = len(self)
        if waiting >= most:
            self._full.add(lane)
        elif waiting <= most * ROOM_AGAIN:
            self._full.discard(lane)
        return 0 if lane in self._full else most - waiting

    def put(self, work: Work, lane: Priority, context: RequestContext, *, running: int) -> None:
        """Let a new record wait; `running` are those beside it whose deadlines are kept here too."""
        record = work.fresh.record
        key = record.key if self._settings.calls_in_key_order else None
        work.ticket = Ticket(work, lane, context.tenant, key, len(work.inbound.record.value or b""))
        self._window.put(work.ticket)
        if context.deadline_ms is not None:
            heapq.heappush(self._deadlines, (context.deadline_ms, next(self._tie), work))
            # a deadline may be far away: what has ended is forgotten long before
            if len(self._deadlines) > 2 * (len(self) + running) + ENDED_KEPT:
                self._deadlines = [entry for entry in self._deadlines if entry[2].ticket is not None]
                heapq.heapify(self._deadlines)

    def put_aside(self, work: Work, until: float) -> None:
        """Let a record that ran wait until its next call is due."""
        heapq.heappush(self._retries, (until, next(self._tie), work))

    def take(self, room: int, *, running: int) -> Work | None:
        """The next to be called for the first time, where `room` more may run; its key stays busy until `done`."""
        ticket = self._window.take(bulk=room > self._reserve(running + room))
        return None if ticket is None else ticket.item

    def due(self, now: float) -> Iterator[Work]:
        """Those whose next call is due, taken out."""
        while self._retries and self._retries[0][0] <= now:
            yield heapq.heappop(self._retries)[2]

    def expired(self, now_ms: int) -> Iterator[tuple[Work, int]]:
        """Records whose deadline has passed, with the deadline; some have ended since."""
        while self._deadlines and self._deadlines[0][0] < now_ms:
            deadline_ms, _, work = heapq.heappop(self._deadlines)
            yield work, deadline_ms

    def done(self, work: Work) -> None:
        """A record that was taken has ended, or is no longer ours: the next of its key may run."""
        assert work.ticket is not None
        self._window.done(work.ticket)
        work.ticket = None

    def remove(self, work: Work) -> None:
        """Take out one record that waits."""
        if work in self.retries:
            self._retries = [entry for entry in self._retries if entry[2] is not work]
            heapq.heapify(self._retries)
            self.done(work)
        else:
            self.drop_unstarted(lambda waiting: waiting is work)

    def drop_unstarted(self, unwanted: Callable[[Work], bool]) -> list[Work]:
        """Take out what waits for its first call and is not wanted any more."""
        dropped = self._window.drop(unwanted)
        for work in dropped:
            work.ticket = None
        return dropped

    def drop(self, going: set[Progress]) -> None:
        """Forget what waits of these partitions: they are no longer ours."""
        self.drop_unstarted(lambda work: work.fresh.progress in going)
        for work in self.retries:
            if work.fresh.progress in going:
                self.done(work)
        self._retries = [entry for entry in self._retries if entry[2].ticket is not None]
        heapq.heapify(self._retries)

    def _reserve(self, places: int) -> int:
        """Of the places that stage and admission have in all, those that bulk leaves free for an interactive record."""
        if self._lanes == 1:
            return 0
        return min(places - 1, round(places * self._settings.calls_interactive_share))
