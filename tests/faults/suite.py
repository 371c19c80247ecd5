"""The frame of the long suites: options, what they are at, a folder for logs, the figures and the exit status.

What a suite does, what its figures are and what of them it demands is its own to say.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from tests.faults.load import show
from tests.support.stack import saying

from penstock.local import broker_for_tests

R = TypeVar("R")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Running:
    """A suite under way."""

    options: Any
    """What the command line says, by the options' names."""
    folder: Path
    """For logs; gone when the suite has ended."""
    say: Say
    """Tells on stderr what the suite is at."""

    @contextmanager
    def broker(self) -> Iterator[str]:
        """A broker for the suite: its bootstrap servers."""
        with broker_for_tests() as broker:
            self.say(f"broker from {broker.origin}")
            yield broker.bootstrap_servers


class Suite:
    """The command `python -m tests.faults.NAME`; `purpose` is its module's docstring."""

    def __init__(self, name: str, purpose: str) -> None:
        self._parser = argparse.ArgumentParser(
            prog=f"python -m tests.faults.{name}", description=purpose.splitlines()[0]
        )

    def option(self, name: str, default: int | float, meaning: str | None = None) -> None:
        """A number that may be given as `--NAME`."""
        self._parser.add_argument(f"--{name}", type=type(default), default=default, help=meaning)

    def once(self, run: Callable[..., R], **more: Any) -> R:
        """What comes of one run, given a broker, the folder, every option by its name, `more`, and `say`."""
        with self.running() as running, running.broker() as bootstrap:
            return run(bootstrap, running.folder, **vars(running.options), **more, say=running.say)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Parse the command line and make the folder."""
        options = self._parser.parse_args()
        say = saying(Console(stderr=True))
        with tempfile.TemporaryDirectory(prefix="penstock-faults-") as folder:
            say(f"logs in {folder}")
            yield Running(options, Path(folder), say)


def end(figures: Mapping[str, object], *tables: Table, held: bool) -> int:
    """Print the figures as the last line, above it `tables` or else all of them as one; the exit status."""
    if tables:
        for table in tables:
            Console().print(table)
        print(json.dumps(figures))
    else:
        show(figures)
    return 0 if held else 1
