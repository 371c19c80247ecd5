"""`dlq redrive`: sending dead letters again once the cause is mended."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from penstock.cli.options import Bootstrap, Json, Prefix, duration, print_json, progress_bar
from penstock.cli.redrive import STAGES, Candidate, Redrive, Sent, Wish, demand, select
from penstock.cli.render import counted, err, out, printable
from penstock.cli.sending import wall_ms
from penstock.cli.target import resolve
from penstock.cli.tracer import traced

_SHOWN = 20


def dlq_redrive(
    which: Annotated[list[str] | None, typer.Argument(metavar="[REQUEST_ID|PARTITION:OFFSET]...")] = None,
    *,
    all_letters: Annotated[bool, typer.Option("--all", help="Every dead letter that can be sent again.")] = False,
    code: Annotated[str | None, typer.Option("--code", help="Those with this error code.")] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Those of this stage.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="STAGE", help="To this stage's input, where the schema fits.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="A new deadline from now, e.g. 30s; else preprocess gives one.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Those too that were sent again before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending more than one.")] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Send dead letters again, to the topic they were read from, as new records with a result of their own.

    Bytes, key and headers stay; the deadline of a request goes, and the trace is new, linked with the old one.
    All are sent in one transaction, or none. Each letter stays and is marked, and is not sent twice unless
    `--again` says so. Duplicates are never sent: the first record's result stands.

    Examples: `penstock dlq redrive 3:17`, `penstock dlq redrive --code backend_unavailable --dry-run`,
    `penstock dlq redrive --stage safety --yes`, `penstock dlq redrive --all --deadline 5m`
    """
    wish = _wish(which or [], all_letters=all_letters, code=code, stage=stage, to=to, deadline=deadline, again=again)
    target = resolve(bootstrap, prefix)
    with traced(target):
        run = None if dry_run else Redrive(target)
        with progress_bar("reading", None, unit="records") as tell:
            candidates = select(target, wish, wall_ms(), progress=tell)
        chosen = demand(candidates, wish) if wish.which else [one for one in candidates if one.refusal is None]
        skipped = {} if wish.which else _skipped(candidates)
        if len(chosen) > 1 and run is not None and not yes:
            typer.confirm(f"{_described(chosen)}: send {len(chosen)} dead letters again?", abort=True, err=True)
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


def _wish(
    which: list[str],
    *,
    all_letters: bool,
    code: str | None,
    stage: str | None,
    to: str | None,
    deadline: str | None,
    again: bool,
) -> Wish:
    """What was asked for; a contradiction is a usage error."""
    filters = all_letters or code is not None or stage is not None
    if not which and not filters:
        raise typer.BadParameter("say which: a request id, a place such as 3:17, --all, --code CODE or --stage STAGE")
    if which and filters:
        raise typer.BadParameter("name dead letters, or select them with --all, --code and --stage; not both")
    for name, value in (("--to", to), ("--stage", stage)):
        if value is not None and value not in STAGES:
            raise typer.BadParameter(f"{name}: expected one of {', '.join(STAGES)}")
    seconds = duration(deadline)
    allowed_ms = None if seconds is None else round(seconds * 1000)
    return Wish(tuple(which), code=code, stage=stage, to=to, allowed_ms=allowed_ms, again=again)


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
