"""`cancel`: stop requests wherever they are, list what is cancelled, take it back."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from penstock.cli.cancelling import Subject, in_force, publish
from penstock.cli.errors import CommandError
from penstock.cli.options import Bootstrap, Json, Prefix, duration, print_json, progress_bar
from penstock.cli.reading import LiveResults, by_request_id, result_of
from penstock.cli.render import err, out, printable, result_line
from penstock.cli.sending import wall_ms
from penstock.cli.target import Target, resolve
from penstock.contracts.control import MAX_REASON_CHARACTERS, Cancel
from penstock.contracts.request import IDENTIFIER_PATTERN
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import RESULTS

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cancel)


def cancel(
    request_ids: Annotated[list[str] | None, typer.Argument(metavar="[REQUEST_ID]...")] = None,
    *,
    conversation: Annotated[
        str | None, typer.Option("--conversation", help="What this conversation has sent until now.")
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="What this tenant has sent until now.")] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Goes into the results' error. No personal data.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take the command back; what it has stopped by then stays stopped.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show what is cancelled now, and end.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results of the requests named.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait, e.g. 30s.")] = "1m",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before cancelling a tenant's work.")] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Stop requests wherever they are, in the middle of a generation too; each ends with the status `cancelled`.

    A request id is stopped whenever it arrives, for as long as llm.control keeps the command; of a conversation or
    a tenant, what was sent until now, and later work goes on. What has ended already stays as it is.

    Exit status 0 where the command was written and, with `--wait`, each request has its result.

    Examples: `penstock cancel ID --wait`, `penstock cancel --conversation chat-7 --reason "user left"`,
    `penstock cancel --tenant acme --yes`, `penstock cancel --list`, `penstock cancel ID --undo`
    """
    if list_all:
        if request_ids or conversation or tenant or undo or wait:
            raise typer.BadParameter("--list goes with nothing else")
        _list(resolve(bootstrap, prefix), as_json=as_json)
        return
    subjects = _subjects(request_ids or [], conversation, tenant, reason)
    if wait and (undo or any(subject.scope != "request" for subject in subjects)):
        raise typer.BadParameter("--wait goes with request ids alone; follow others with `penstock results --follow`")
    limit_s = duration(timeout) or 0.0
    target = resolve(bootstrap, prefix)
    if tenant is not None and not (yes or undo):
        typer.confirm(f"cancel all that tenant {tenant} has sent until now?", abort=True, err=True)
    now_ms = wall_ms()
    commands = {subject.key: None if undo else subject.cancel(now_ms, reason) for subject in subjects}
    if not wait:
        publish(target, commands)
        _say(subjects, commands, None, as_json=as_json)
        return
    ids = [subject.name for subject in subjects]
    with LiveResults(target) as live:  # from before the command, so that no result is missed
        publish(target, commands)
        results = _results(target, live, ids, limit_s)
    _say(subjects, commands, results, as_json=as_json)
    if missing := [one for one in ids if one not in results]:
        raise CommandError(
            f"{len(missing)} without a result within {timeout}: {', '.join(missing[:5])}; a request that has not "
            "arrived yet is cancelled when it does"
        )


def _subjects(
    request_ids: list[str], conversation: str | None, tenant: str | None, reason: str | None
) -> list[Subject]:
    """What was named; none, or more than one kind, is a usage error."""
    named = [Subject("request", one) for one in dict.fromkeys(request_ids)]
    kinds = [bool(named), conversation is not None, tenant is not None]
    if sum(kinds) != 1:
        raise typer.BadParameter("say which: request ids, --conversation ID or --tenant NAME; one of these, or --list")
    if conversation is not None:
        named = [Subject("conversation", conversation)]
    if tenant is not None:
        named = [Subject("tenant", tenant)]
    for subject in named:
        if not _IDENTIFIER.fullmatch(subject.name):
            raise typer.BadParameter(f"{subject.scope}: expected 1 to 128 letters, digits and . _ : -")
    if reason is not None and len(reason) > MAX_REASON_CHARACTERS:
        raise typer.BadParameter(f"--reason: {len(reason)} characters, more than {MAX_REASON_CHARACTERS}")
    return named


def _results(target: Target, live: LiveResults, ids: list[str], limit_s: float) -> dict[str, RequestFinished]:
    """The newest result of each request, as far as they come within the limit."""
    until = time.monotonic() + limit_s
    results: dict[str, RequestFinished] = {}
    with progress_bar("reading results", None, unit="records") as tell:
        for one in ids:
            for record in by_request_id(target, RESULTS, one, progress=tell):
                results[one] = result_of(record, target.claims)
    while (left := until - time.monotonic()) > 0 and len(results) < len(ids):
        for record in live.records(min(left, 0.25)):
            result = result_of(record, target.claims)
            if result.id in ids:
                results[result.id] = result
    return results


def _say(
    subjects: list[Subject],
    commands: dict[str, Cancel | None],
    results: dict[str, RequestFinished] | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        listed = [
            {
                "scope": subject.scope,
                "name": subject.name,
                "command": None
                if (c := commands[subject.key]) is None
                else c.model_dump(mode="json", exclude_none=True),
                **(
                    {}
                    if results is None
                    else {"status": results[subject.name].status if subject.name in results else None}
                ),
            }
            for subject in subjects
        ]
        print_json(listed)
        return
    for subject in subjects:
        what = "taken back" if commands[subject.key] is None else "cancelled"
        until = "" if subject.scope == "request" or commands[subject.key] is None else ", as far as sent until now"
        out.print(f"{subject.scope} {printable(subject.name)}: {what}{until}", markup=False)
    for result in (results or {}).values():
        out.print(result_line(result))


def _list(target: Target, *, as_json: bool) -> None:
    commands = in_force(target, wall_ms())
    if as_json:
        print_json([command.model_dump(mode="json", exclude_none=True) for command in commands])
        return
    if not commands:
        err.print("nothing is cancelled", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("what", "name", "issued at", "reason"):
        table.add_column(heading)
    for command in commands:
        issued = datetime.fromtimestamp(command.issued_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        table.add_row(command.scope, escape(printable(command.name)), issued, escape(printable(command.reason or "")))
    out.print(table)
