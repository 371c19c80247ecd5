"""`diff`: what a replay changed."""

from __future__ import annotations

import heapq
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from penstock.cli.comparing import CHANGED, NEITHER, ONLY_LIVE, ONLY_REPLAY, SAME, Comparison, Pair, pairs, versions
from penstock.cli.errors import CommandError
from penstock.cli.options import Bootstrap, Json, print_json
from penstock.cli.outcomes import Outcome, collect, keys_of
from penstock.cli.rates import rated
from penstock.cli.render import clipped, out, printable
from penstock.cli.replays import Replays, check_prefix
from penstock.cli.target import Target, resolve, settings_for

DIFFERS = 3
_TEXT_SHOWN = 300
_NAMED = {
    SAME: "same",
    CHANGED: "changed, same status",
    ONLY_LIVE: "live only: not replayed to its end",
    ONLY_REPLAY: "replay only: the live outcome is gone, or not there yet",
    NEITHER: "neither",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(diff)


def diff(
    *,
    into: Annotated[str, typer.Option("--into", metavar="PREFIX", help="The replay's prefix.")],
    show: Annotated[int, typer.Option("--show", min=0, help="So many examples of what is not the same.")] = 0,
    text: Annotated[
        bool, typer.Option("--text", help="With the texts, which behind postprocess hold names in clear.")
    ] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit status 3 where anything differs.")] = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Compare what became of a replay's records with what became of the live ones, by request id.

    Compared are status, error code, verdicts (direction, label, action), text (by digest) and tokens. The last line
    is JSON with the figures.

    Exit status 0 compared, 1 not compared, 2 wrong usage; with `--exit-code` 3 where anything differs.

    Examples: `penstock diff --into strict.`, `penstock diff --into strict. --show 10`,
    `penstock diff --into strict. --json --exit-code`
    """
    target = resolve(bootstrap, None)
    wrong = check_prefix(into, "")
    if wrong is not None:
        raise typer.BadParameter(f"--into: {wrong}")
    replays = Replays(target, into)
    manifest = replays.demand()
    live = Target(settings_for(target.bootstrap, manifest.live_prefix))
    keys = keys_of(replays.own, manifest)
    if not keys:
        raise CommandError(f"the replay under {into!r} has no records: its window is empty, or nothing was copied yet")
    ids = {key.request_id for key in keys}
    with rated("reading the live outcomes") as tell:
        before = collect(live, manifest, keys, ids, from_ms=manifest.from_ms, text=text, progress=tell)
    with rated("reading the replayed outcomes") as tell:
        after = collect(replays.own, manifest, keys, ids, text=text, progress=tell)
    comparison = Comparison(repeated=sum(keys.values()) - len(keys))
    examples: list[Pair] = []
    for pair in pairs(keys, before, after):
        comparison.add(pair)
        if pair.kind != SAME:
            examples.append(pair)
    # what changed most first
    examples = heapq.nsmallest(show, examples, key=lambda one: (one.kind != CHANGED, "status" not in one.aspects))
    figures = {
        "into": into,
        "live_prefix": manifest.live_prefix,
        "stage": manifest.stage,
        **comparison.figures(),
        "versions": versions(before, after),
    }
    if as_json:
        print_json({**figures, "examples": [pair.described() for pair in examples]})
    else:
        _print(comparison, examples)
        for part, found in versions(before, after).items():
            out.print(f"{part}: {_listed(found['live'])} → {_listed(found['replay'])}", markup=False)
        print_json(figures)
    if exit_code and comparison.differs:
        raise typer.Exit(DIFFERS)


def _print(comparison: Comparison, examples: list[Pair]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "outcome", "records"):
        table.add_column(heading, justify="right" if heading == "records" else "left")
    moved = comparison.transitions
    for (topic, kind), number in sorted(comparison.kinds.items()):
        other = sum(n for (name, _, _), n in moved.items() if name == topic) if kind == CHANGED else 0
        if number - other:
            table.add_row(topic, _NAMED[kind], f"{number - other:,}")
    for (topic, old, new), number in sorted(moved.items()):
        table.add_row(topic, f"{old} → {new}", f"{number:,}")
    out.print(table)
    labels = comparison.figures()["labels"]
    if labels:
        verdicts = Table(box=None, pad_edge=False)
        for heading in ("records with verdict", "live", "replay"):
            verdicts.add_column(heading, justify="left" if "verdict" in heading else "right")
        for label, counts in labels.items():
            verdicts.add_row(escape(printable(label)), f"{counts['live']:,}", f"{counts['replay']:,}")
        out.print(verdicts)
    for pair in examples:
        out.print(
            f"{printable(pair.key.request_id)}  {pair.key.topic}  {_shown(pair.live)} → {_shown(pair.replayed)}",
            markup=False,
        )
        for side, one in (("live", pair.live), ("replay", pair.replayed)):
            if one is not None and one.text is not None:
                out.print(f"    {side:<7} {clipped(printable(one.text), _TEXT_SHOWN)}", markup=False)


def _shown(one: Outcome | None) -> str:
    if one is None:
        return "nothing"
    return ", ".join((one.status if one.code is None else f"{one.status} {one.code}", *one.said))


def _listed(found: list[str]) -> str:
    return ", ".join(map(printable, found)) or "none"
