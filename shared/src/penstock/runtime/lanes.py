"""Running a worker for each lane in one process, each in a thread of its own, and ending them together.

A thread belongs to one lane, and so does what it writes to a state store: `CURRENT` says which. What a worker
does is its own business; who goes first is the gate's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from penstock.contracts.events import Priority

CURRENT: Final[ContextVar[Priority]] = ContextVar("penstock_lane", default="interactive")
"""The lane of the running thread."""

SWITCH_INTERVAL_S: Final = 0.001
"""How long one lane's thread may hold the interpreter while the other's wants it; Python's own is 5 ms."""
JOIN_S: Final = 0.2
"""The main thread comes back this often, so that signals are heard."""


@dataclass(slots=True)
class Ended:
    """How one lane's run ended."""

    clean: bool = False
    error: BaseException | None = None


def run(runs: Mapping[Priority, Callable[[], bool]], stopping: threading.Event) -> dict[Priority, Ended]:
    """Run all until they end; where one ends by itself or with an error, the others are told to stop."""
    ended = {lane: Ended() for lane in runs}

    def work(lane: Priority) -> None:
        CURRENT.set(lane)
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
