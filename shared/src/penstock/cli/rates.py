"""How far a long run is, how fast, and how long it will still take: a bar on a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from penstock.cli.durations import show_ms
from penstock.cli.reading import Progress as Tell
from penstock.cli.render import err

_EVERY_S = 10.0


class _Rate:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None

    def of(self, done: int) -> float:
        """Per second since the first report; what was done before does not count."""
        if self._first is None:
            self._first = done
        return (done - self._first) / max(time.monotonic() - self._began, 1e-3)


def described(what: str, done: int, total: int | None, rate: float) -> str:
    """`replaying: 1,200 of 5,000, 300/s, 12.7 s left`."""
    of = "" if total is None else f" of {total:,}"
    left = "" if total is None or rate <= 0 else f", {show_ms((total - done) / rate * 1000)} left"
    return f"{what}: {done:,}{of}, {rate:,.0f}/s{left}"


@contextmanager
def rated(what: str) -> Iterator[Tell]:
    """A function that is told how much is done, and of how much."""
    rate = _Rate()
    if not err.is_terminal:
        said = time.monotonic()

        def log(done: int, total: int | None) -> None:
            nonlocal said
            speed = rate.of(done)
            if time.monotonic() - said >= _EVERY_S:
                said = time.monotonic()
                err.print(described(what, done, total, speed), markup=False)

        yield log
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task: TaskID = bar.add_task(what, total=None, rate="")

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, rate=f"{rate.of(done):,.0f}/s")

        yield show
