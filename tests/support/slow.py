"""An unordered stage that waits a random time for each record, and its service: `python -m tests.support.slow`.

A log of its own, one file for all processes, says when each call began and ended.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

from penstock.contracts.events import Completion, CompletionGenerated, RequestScreened, Usage
from penstock.contracts.results import Status
from penstock.contracts.topics import SCREENED, STATE_CALLS
from penstock.runtime import progress
from penstock.runtime.app import serve
from penstock.runtime.settings import UnorderedSettings, load
from penstock.runtime.stage import Inbound, Job

NAME = "inference"
LOG = "SLOW_LOG"
DELAYS = "SLOW_DELAYS"
"""Shortest and longest wait in seconds, separated by a comma."""
CAPACITY = "SLOW_CAPACITY"
NO_BITMAP = "SLOW_NO_BITMAP"
"""Set for a control: offsets are committed without what is finished ahead of them."""


class CallLog:
    """Calls begun and ended, over the lives of all processes."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._path = path

    def write(self, what: str, request_id: str) -> None:
        # one write of a short line in append mode is never torn
        os.write(self._file, f"{what} {request_id} {os.getpid()} {time.time():.3f}\n".encode())

    def calls(self, what: str) -> dict[str, list[tuple[int, float]]]:
        """Request id -> the process and the time of each."""
        found: dict[str, list[tuple[int, float]]] = {}
        for line in self._path.read_text().splitlines():
            kind, request_id, process, at = line.split(" ")
            if kind == what:
                found.setdefault(request_id, []).append((int(process), float(at)))
        return found

    def counts(self, what: str) -> Counter[str]:
        return Counter({request_id: len(calls) for request_id, calls in self.calls(what).items()})


class Slow:
    """Answers each record after a random wait, hundreds at a time."""

    name = NAME
    versions: ClassVar[dict[str, str]] = {NAME: "slow"}

    def __init__(self, log: CallLog, *, shortest_s: float, longest_s: float, capacity: int, seed: int = 0) -> None:
        self._log = log
        self._bounds = (shortest_s, longest_s)
        self._capacity = capacity
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Job]] = []
        self._tie = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self.cancelled = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def room(self) -> int:
        return self._capacity - len(self._due)

    def start(self, job: Job) -> None:
        self._log.write("begun", job.inbound.expect(RequestScreened).context.request_id)
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + self._random.uniform(*self._bounds), next(self._tie), job))
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        with self._changed:
            self._due = [entry for entry in self._due if entry[2] is not job]
            heapq.heapify(self._due)
            self.cancelled += 1

    def ended(self, inbound: Inbound, status: Status) -> None:
        """Nothing was streamed."""

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not (self._due and self._due[0][0] <= time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                job = heapq.heappop(self._due)[2]
            event = job.inbound.expect(RequestScreened)
            self._log.write("ended", event.context.request_id)
            job.first_output()
            job.finish(answer_to(event))


def answer_to(event: RequestScreened) -> CompletionGenerated:
    """A completion of no words."""
    usage = Usage(prompt_tokens=0, completion_tokens=1, total_tokens=1)
    return CompletionGenerated(
        context=event.context,
        completion=Completion(text="done", finish_reason="stop", usage=usage),
        parameters=event.parameters,
    )


def main() -> int:
    shortest, longest = map(float, os.environ[DELAYS].split(","))
    log = CallLog(Path(os.environ[LOG]))
    if os.environ.get(NO_BITMAP):
        progress.encode = lambda base, finished: ""
    stage = Slow(log, shortest_s=shortest, longest_s=longest, capacity=int(os.environ[CAPACITY]), seed=os.getpid())
    return serve(load(UnorderedSettings), name=NAME, consumes=[SCREENED], build=lambda _: stage, ledger=STATE_CALLS)


if __name__ == "__main__":
    sys.exit(main())
