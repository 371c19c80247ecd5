"""`dlq redrive`: sending dead letters again once the cause is mended."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from typing import Annotated

import typer

from penstock.cli import editing, letter_filter
from penstock.cli.dead_letters import body_of, find
from penstock.cli.letter_filter import STAGES
from penstock.cli.options import Bootstrap, Json, Prefix, duration, print_json, progress_bar
from penstock.cli.redrive import Candidate, Redrive, Sent, Wish, demand, select
from penstock.cli.render import counted, err, out, printable
from penstock.cli.sending import wall_ms
from penstock.cli.target import Target, resolve
from penstock.cli.tracer import traced

_SHOWN = 20


def dlq_redrive(
    which: Annotated[list[str] | None, typer.Argument(metavar="[REQUEST_ID|PARTITION:OFFSET]...")] = None,
    *,
    all_letters: Annotated[bool, typer.Option("--all", help="Every dead letter that can be sent again.")] = False,
    filters: Annotated[list[str] | None, typer.Option("--filter", metavar="KEY=VALUE", help=letter_filter.HELP)] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="STAGE", help="To this stage's input, where the schema fits.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="A new deadline from now, e.g. 30s; else preprocess gives one.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Those too that were sent again before.")] = False,
    edit: Annotated[
        bool, typer.Option("--edit", help="Open the body of the one letter named in $EDITOR, and send what is saved.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending more than one.")] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Send dead letters again, to the topic they were read from, as new records with a result of their own.

    Bytes, key and headers stay; the deadline of a request goes, and the trace is new, linked with the old one.
    With `--edit` the bytes are yours, checked against the schema before they go.
    All are sent in one transaction, or none. Each letter stays and is marked, and is not sent twice unless
    `--again` says so. Duplicates are never sent: the first record's result stands.

    Examples: `penstock dlq redrive 3:17`, `penstock dlq redrive 3:17 --edit`,
    `penstock dlq redrive --filter code=rate_limited --filter since=2h --dry-run`,
    `penstock dlq redrive --filter stage=safety --yes`, `penstock dlq redrive --all --deadline 5m`
    """
    wish = _wish(which or [], filters or [], all_letters=all_letters, to=to, deadline=deadline, again=again)
    if edit and (len(wish.which) != 1 or dry_run):
        raise typer.BadParameter("--edit takes the one dead letter that you name, and no --dry-run")
    target = resolve(bootstrap, prefix)
    with traced(target):
        run = None if dry_run else Redrive(target)
        with progress_bar("reading", None, unit="records") as tell:
            candidates = select(target, wish, wall_ms(), progress=tell)
        chosen = demand(candidates, wish) if wish.which else [one for one in candidates if one.refusal is None]
        skipped = {} if wish.which else _skipped(candidates)
        if len(chosen) > 1 and run is not None and not yes:
            typer.confirm(f"{_described(chosen)}: send {len(chosen)} dead letters again?", abort=True, err=True)
        if edit:
            wish = replace(wish, edited=_edited(target, chosen[0]))
        sent: list[Sent] = []
        if chosen and run is not None:
            with progress_bar("redriving", len(chosen), unit="records") as tell:
                sent = run.send(chosen, wish, tell=lambda done: tell(done, None))
    dropped = sum(one.had_deadline for one in chosen) if wish.allowed_ms is None else 0
    if as_json:
        listed = [asdict(one) for one in sent] if run is not None else [_planned(one) for one in chosen]
        counts = {"selected": len(candidates), "skipped": skipped, "deadlines_dropped": dropped}
        print_json({"redriven": listed, "dry_run": dry_run, **counts})
        return
    _print(chosen, sent, dry_run=dry_run)
    if skipped:
        out.print(f"{sum(skipped.values())} left: {counted(skipped)}", markup=False)
    if dropped:
        out.print(f"{dropped} had a deadline, which was left out; --deadline sets a new one", markup=False)


def _edited(target: Target, candidate: Candidate) -> bytes:
    """The body as the operator saved it, once it can be sent."""
    (letter,) = (one for one in find(target, candidate.place) if one.place == candidate.place)
    original = body = body_of(letter, target) or b""
    err.print("restricted: the body may hold personal data", style="yellow", markup=False)
    while True:
        body = editing.edit(body)
        problem = editing.problem(body, original, candidate.topic or "", letter.metadata)
        if problem is None:
            return body
        err.print(problem, markup=False)
        typer.confirm("Edit it again? Else nothing is sent", abort=True, err=True)


def _wish(
    which: list[str],
    filters: list[str],
    *,
    all_letters: bool,
    to: str | None,
    deadline: str | None,
    again: bool,
) -> Wish:
    """What was asked for; a contradiction is a usage error."""
    if not which and not filters and not all_letters:
        raise typer.BadParameter("say which: a request id, a place such as 3:17, --all or --filter KEY=VALUE")
    if which and (filters or all_letters):
        raise typer.BadParameter("name dead letters, or select them with --all and --filter; not both")
    if to is not None and to not in STAGES:
        raise typer.BadParameter(f"--to: expected one of {', '.join(STAGES)}")
    meant = letter_filter.parse(filters, wall_ms())
    seconds = duration(deadline)
    allowed_ms = None if seconds is None else round(seconds * 1000)
    return Wish(tuple(which), filter=meant, to=to, allowed_ms=allowed_ms, again=again)


def _skipped(candidates: list[Candidate]) -> dict[str, int]:
    return dict(Counter(one.refusal.reason for one in candidates if one.refusal is not None))


def _described(chosen: list[Candidate]) -> str:
    return counted(dict(Counter(f"{one.metadata.error.code} in {one.metadata.stage}" for one in chosen)))


def _planned(one: Candidate) -> dict[str, str | None]:
    return {"place": one.place, "request_id": one.metadata.request_id, "to": one.topic}


def _print(chosen: list[Candidate], sent: list[Sent], *, dry_run: bool) -> None:
    if not chosen:
        err.print("no dead letter to send again", markup=False)
        return
    traces = {one.place: one.trace_id for one in sent}
    for one in chosen[:_SHOWN]:
        trace = f", trace {traces[one.place]}" if traces.get(one.place) else ""
        out.print(f"{one.place:<10} {printable(one.metadata.request_id)} → {one.topic}{trace}", markup=False)
    if len(chosen) > _SHOWN:
        out.print(f"and {len(chosen) - _SHOWN} more", markup=False)
    said = "would be sent again" if dry_run else "sent again"
    out.print(f"{len(chosen)} {said}: {_described(chosen)}", markup=False)
