"""A process for each peer, so that no library's threads, memory or settings touch another's."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

_END_S = 20.0


class SeatError(RuntimeError):
    """A peer failed; its traceback is the text."""


class Seat:
    """An object that was made, and whose methods run, in a process of its own."""

    def __init__(self, factory: Callable[..., Any], *args: Any) -> None:
        """Start it and wait until the object is made. Raises SeatError."""
        context = multiprocessing.get_context("spawn")
        self._near, far = context.Pipe()
        self._process = context.Process(target=_sit, args=(far, factory, args), daemon=True)
        self._process.start()
        far.close()
        self._answer()

    def call(self, method: str, *args: Any) -> Any:
        """Run a method and wait for what it returns. Raises SeatError."""
        self._near.send((method, args))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._near.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Seat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            good, value = self._near.recv()
        except EOFError:
            self._process.join(_END_S)
            raise SeatError(f"the process ended with {self._process.exitcode}") from None
        if not good:
            raise SeatError(value)
        return value


def _sit(far: Connection, factory: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        sitting = factory(*args)
    except Exception:  # noqa: BLE001  # whatever it is, the other side raises it
        far.send((False, traceback.format_exc()))
        return
    far.send((True, None))
    with suppress(EOFError):
        while True:
            method, given = far.recv()
            try:
                answer = (True, getattr(sitting, method)(*given))
            except Exception:  # noqa: BLE001  # likewise
                answer = (False, traceback.format_exc())
            far.send(answer)
