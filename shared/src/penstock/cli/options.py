"""The options that commands share, and showing progress on a terminal and in a log alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from penstock.cli.durations import parse_duration
from penstock.cli.render import err

Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap",
        envvar="PENSTOCK_KAFKA_BOOTSTRAP_SERVERS",
        metavar="HOST:PORT",
        help="Kafka's address; without it, the local stack's.",
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", envvar="PENSTOCK_TOPIC_PREFIX", help="Put before every topic's name."),
]
PrincipalPrefix = Annotated[
    str,
    typer.Option("--principal-prefix", help="The services' users are this and their name, e.g. penstock-safety."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
ShowAnswers = Annotated[
    bool, typer.Option("--show-answers", help="Print the answers too. They may hold personal data: names are restored.")
]


def duration(text: str | None) -> float | None:
    """An option's duration in seconds; a bad one is a usage error."""
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def print_json(value: Any) -> None:
    """One JSON value on one line of standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


@contextmanager
def reporting() -> Iterator[Callable[[str], None]]:
    """A function that says what is being done: a spinner on a terminal, a line for each new thing in a log."""
    if err.is_terminal:
        with err.status("") as spinner:
            yield spinner.update
        return
    said: set[str] = set()

    def say(doing: str) -> None:
        if doing not in said:
            said.add(doing)
            err.print(doing, markup=False)

    yield say


@contextmanager
def progress_bar(
    what: str, total: int | None, *, unit: Literal["bytes", "records"]
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, shown on terminals alone; the function takes how much is done, and of how much."""
    amount: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of if of is not None else total)
