"""Work that goes on in a thread of its own while a context lasts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Background(ABC):
    """As a context manager it starts the thread, sets `_ending`, by which `_run` is to end, and joins it."""

    def __init__(self, name: str) -> None:
        self._ending = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._close()

    @abstractmethod
    def _run(self) -> None:
        """What the thread does."""

    def _close(self) -> None:
        """Give back what the thread used; it has ended."""
        return

    def _stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _check(self) -> None:
        """Raises what ended the thread: for whoever asks how it goes."""
        if self._failure is not None:
            raise self._failure

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001  # handed to the thread that asks
            self._failure = error


class Task(Background):
    """One function as the work, for an object that has several threads: it is given the event by which it is to end."""

    def __init__(self, name: str, work: Callable[[threading.Event], None]) -> None:
        super().__init__(name)
        self._work = work

    def stop(self) -> None:
        """Have it end, and wait for that."""
        self._stop()

    def check(self) -> None:
        """Raises what ended it."""
        self._check()

    def _run(self) -> None:
        self._work(self._ending)
