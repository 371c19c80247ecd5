"""A thread beside a service's workers: what ends it is raised where somebody waits for it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from penstock.runtime.publisher import Stuck

JOIN_S = 10.0


class SideThread(ABC):
    """Runs `_run` in a thread of its own until told to stop; a failure tells the whole process to."""

    def __init__(self, name: str, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, once `stopping` is set; raises what the thread failed with, Stuck where it does not end."""
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            raise Stuck
        if self._failure is not None:
            raise self._failure

    @abstractmethod
    def _run(self) -> None:
        """Work until `_stopping` is set."""

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001  # handed to the process's main thread by `join`
            self._failure = error
            self._stopping.set()
