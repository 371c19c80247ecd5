"""Running a worker for each lane in one process, each in a thread of its own, and ending them together.

A thread belongs to one lane, and so does what it writes to a state store: `CURRENT` says which. What a worker
does is its own business; who goes first is the gate's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

from penstock.contracts.events import Priority

T = TypeVar("T")

CURRENT: Final[ContextVar[Priority]] = ContextVar("penstock_lane", default="interactive")
"""The lane of the running thread."""

SWITCH_INTERVAL_S: Final = 0.001
"""How long one lane's thread may hold the interpreter while the other's wants it; Python's own is 5 ms."""
LEAST_PRIORITY: Final = 19
JOIN_S: Final = 0.2
"""The main thread comes back this often, so that signals are heard."""


@dataclass(slots=True)
class Ended:
    """How one lane's run ended."""

    clean: bool = False
    error: BaseException | None = None


def yielding(lane: Priority, nice: int, make: Callable[[], T]) -> T:
    """What `make` returns, called in a thread that has the lane's priority: threads that it starts have it, too.

    A client starts its own threads when it is made.
    """
    with ThreadPoolExecutor(1, thread_name_prefix=f"make-{lane}", initializer=_yield, initargs=(lane, nice)) as made:
        return made.submit(make).result()


def _yield(lane: Priority, nice: int) -> None:
    """Let other threads of the machine go before this one and those that it will start, where its lane is bulk."""
    if lane == "bulk" and sys.platform == "linux":  # elsewhere a process has one priority for all its threads
        here = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, here, min(LEAST_PRIORITY, os.getpriority(os.PRIO_PROCESS, here) + nice))


def run(runs: Mapping[Priority, Callable[[], bool]], stopping: threading.Event, nice: int = 0) -> dict[Priority, Ended]:
    """Run all until they end; where one ends by itself or with an error, the others are told to stop.

    By `nice` the bulk lane's thread has a lower priority, as the operating system counts it.
    """
    ended = {lane: Ended() for lane in runs}

    def work(lane: Priority) -> None:
        CURRENT.set(lane)
        _yield(lane, nice)
        try:
            ended[lane].clean = runs[lane]()
        except BaseException as error:  # noqa: BLE001  # the caller decides what each kind means
            ended[lane].error = error
        finally:
            stopping.set()

    threads = [threading.Thread(target=work, args=(lane,), name=f"lane-{lane}") for lane in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(JOIN_S)
    return ended
