"""Who goes first where two lanes share a process: interactive records, then bulk ones, a slice at a time.

Bulk work is cut into slices of a few milliseconds. Before each slice it waits while interactive records are in
work or were a moment ago, but never longer than its minimum share of the time allows, so that it does not
starve. Without interactive records it never waits. The gate orders work within one process; what other
processes do on the machine is the operating system's to share out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

LONGEST_REST_S = 5.0
"""However long a slice took, bulk waits no longer than this for the next."""
LOOK_EVERY_S = 0.05
"""How often a waiting lane looks whether it is to stop."""
SMOOTHING = 0.3
"""Weight of the newest slice in the cost of a record."""


class Gate:
    """One for both lanes of a process. Interactive enters and leaves, bulk asks for slices."""

    def __init__(
        self,
        *,
        share: float,
        quiet_s: float,
        slice_s: float,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`share` of the time is bulk's however much interactive work there is; `quiet_s` after interactive
        work it still waits; a slice takes about `slice_s`."""
        self._rest = (1 - share) / share
        self._quiet_s = quiet_s
        self._slice_s = slice_s
        self._stopping = stopping
        self._clock = clock
        self._changed = threading.Condition()
        self._in_work = 0
        self._left = -quiet_s - 1e9
        self._rested_at = clock()
        self._cost_s = slice_s

    @contextmanager
    def interactive(self) -> Iterator[None]:
        """Around interactive work."""
        with self._changed:
            self._in_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_work -= 1
                self._left = self._clock()
                self._changed.notify_all()

    def slices(self, records: Sequence[T], hurry: Callable[[], bool] = lambda: False) -> Iterator[Sequence[T]]:
        """The records of a bulk batch in pieces, each handed out when its turn has come, or `hurry` says at once."""
        start = 0
        while start < len(records):
            self._wait(hurry)
            size = max(1, int(self._slice_s / self._cost_s))
            piece = records[start : start + size]
            began = self._clock()
            yield piece
            self._worked(self._clock() - began, len(piece))
            start += len(piece)

    def _wait(self, hurry: Callable[[], bool]) -> None:
        with self._changed:
            while (seconds := self.due_in()) > 0 and not self._stopping.is_set() and not hurry():
                self._changed.wait(min(seconds, LOOK_EVERY_S))

    def due_in(self) -> float:
        """Seconds until bulk may go on, as things stand; 0 or less where it may now."""
        now = self._clock()
        rested = self._rested_at - now
        if self._in_work:
            return rested
        return min(rested, self._left + self._quiet_s - now)

    def _worked(self, seconds: float, records: int) -> None:
        self._rested_at = self._clock() + min(LONGEST_REST_S, seconds * self._rest)
        self._cost_s += SMOOTHING * (max(seconds / records, 1e-6) - self._cost_s)
