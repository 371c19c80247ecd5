"""RequestScreened -> CompletionGenerated: a thread of its own generates all that is there, all the time.

A request joins between two steps, leaves when its answer is complete, and is given up within one step.
What becomes of each is `generating`'s work, how tokens are made the backend's; screening and restoring
the answer are later stages'.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import structlog

from penstock.contracts.errors import StageError
from penstock.contracts.events import RequestScreened
from penstock.contracts.results import Status
from penstock.runtime.logging import frames
from penstock.runtime.stage import Inbound, Job, TokenSink
from penstock_inference.backend import Backend
from penstock_inference.generating import Generating

_log = structlog.get_logger()

STAGE = "inference"


class InferenceStage:
    """Implements `penstock.runtime.stage.UnorderedStage`. `monotonic` gives seconds; a test hands in its own."""

    name = STAGE

    def __init__(
        self,
        backend: Backend,
        sink: TokenSink,
        *,
        release: str,
        queue: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`queue` is how many requests may wait here for a free row, so that none stays empty for long."""
        self._backend = backend
        self._most = backend.rows + queue
        self._monotonic = monotonic
        self._generating = Generating(backend, sink, monotonic)
        self._changed = threading.Condition()
        self._arrived: deque[tuple[Job, float]] = deque()
        self._cancelled: list[Job] = []
        self._ended: list[tuple[Inbound, Status]] = []
        self._held = 0
        self._closed = False
        self.versions: Mapping[str, str] = {STAGE: release, **backend.versions}
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    def room(self) -> int:
        """Free rows, whose cache memory is theirs alone, and free places in the queue before them.

        Raises StageError where nothing is generated any more: the process must end.
        """
        if not (self._thread.is_alive() or self._closed):
            raise StageError("the thread that generates has ended; the log has the place")
        with self._changed:
            return self._most - self._held - len(self._arrived)

    def start(self, job: Job) -> None:
        """Begin a record; it joins between two steps."""
        with self._changed:
            self._arrived.append((job, self._monotonic()))
            self._changed.notify()
        self._backend.wake()

    def cancel(self, job: Job) -> None:
        """Give a record up; its row is free at the next step."""
        with self._changed:
            waiting = len(self._arrived)
            self._arrived = deque(entry for entry in self._arrived if entry[0] is not job)
            if len(self._arrived) == waiting:
                self._cancelled.append(job)
                self._changed.notify()
        self._backend.wake()

    def ended(self, inbound: Inbound, status: Status) -> None:
        """End the streams of a request that has no answer, after all that was told of them."""
        event = inbound.event
        if not (isinstance(event, RequestScreened) and event.parameters.stream):
            return
        with self._changed:
            self._ended.append((inbound, status))
            self._changed.notify()
        self._backend.wake()

    def close(self) -> None:
        """Give up all that is left, after the step that runs."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._backend.wake()
        self._thread.join()
        self._backend.close()

    def _run(self) -> None:
        try:
            while self._turn():
                self._generating.step()
            self._generating.clear()
        except Exception as error:  # noqa: BLE001  # without its message, which may quote a prompt; `room` tells the worker
            _log.critical("inference.thread.failed", error_type=type(error).__name__, frames=frames(error))

    def _turn(self) -> bool:
        """Take in what came and what was given up since the last step; False where it is time to end."""
        with self._changed:
            self._held = len(self._generating)
            while not (self._closed or self._arrived or self._cancelled or self._ended or self._held):
                self._changed.wait()
            cancelled, self._cancelled = self._cancelled, []
            ended, self._ended = self._ended, []
            arrived: list[tuple[Job, float]] = []
            if not self._generating.isolating:
                arrived, self._arrived = list(self._arrived), deque()
            self._held += len(arrived)
        for job in cancelled:
            self._generating.cancel(job)
        for inbound, status in ended:
            self._generating.end_streams(inbound, status)
        for job, started in arrived:
            self._generating.begin(job, started)
        return not self._closed
