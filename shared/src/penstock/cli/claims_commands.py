"""`claims`: what is in the claim store, and removing what no record leads to any more."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.errors import CommandError
from penstock.cli.options import Json, duration, print_json
from penstock.cli.render import out, printable
from penstock.contracts.claims import topic_of_object
from penstock.contracts.topics import CLAIMABLE
from penstock.runtime.claim_stores import PARTIAL, VARIABLE, ClaimStore, Stored, open_store
from penstock.runtime.claims import lifetime_hours

claims_app = typer.Typer(
    no_args_is_help=True, help="The claim store, where large messages are kept: what is in it, and collecting orphans."
)

Store = Annotated[
    str | None,
    typer.Option("--store", envvar=VARIABLE, metavar="URL", help="file:///FOLDER or s3://BUCKET/PREFIX."),
]


@dataclass(frozen=True, slots=True)
class Collected:
    """What `collect` found too old."""

    object: Stored
    topic: str


def lifetimes(older_than_s: float | None) -> dict[str, float]:
    """Topic -> age in seconds beyond which nothing leads to its objects; `older_than_s` holds for all where given."""
    return {
        topic: lifetime_hours(topic) * 3600.0 if older_than_s is None else older_than_s for topic in sorted(CLAIMABLE)
    }


def collect(store: ClaimStore, ages_s: dict[str, float], now_s: float, *, dry_run: bool) -> Iterator[Collected]:
    """Delete what is older than its topic's age, each just after looking once more; what is not ours is left.

    What a crash left half written counts as of the topic with the longest age.
    """
    for found in store.list():
        partial = found.name.startswith(f"{PARTIAL}/")
        topic = PARTIAL if partial else topic_of_object(found.name)
        age_s = max(ages_s.values()) if partial else ages_s.get(topic or "")
        if topic is None or age_s is None or now_s - found.modified_s <= age_s:
            continue
        again = store.stat(found.name)  # it may have been renewed for a dead letter that is sent again
        if again is None or now_s - again.modified_s <= age_s:
            continue
        if not dry_run:
            store.delete(found.name)
        yield Collected(again, topic)


@claims_app.command("gc")
def claims_gc(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", help="Age such as 30d or 12h; else as long as a record or dead letter may lead to it."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask where records may still need objects.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Delete objects that no record leads to any more, by age: orphans of aborted transactions too.

    By default an object goes once its topic's retention has passed and, where a stage reads the topic, those of its
    retry topic and of dead letters. Run it daily. It may be interrupted and run again at any time.

    Examples: `penstock claims gc --dry-run`, `penstock claims gc`, `penstock claims gc --older-than 60d`
    """
    seconds = duration(older_than)
    needed = max(lifetimes(None).values())
    ages = lifetimes(seconds)
    opened = _opened(store)
    if seconds is not None and seconds < needed and not (yes or dry_run):
        typer.confirm(
            f"records and dead letters may lead to objects for {needed / 86_400:.0f} days: delete them earlier?",
            abort=True,
            err=True,
        )
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in collect(opened, ages, time.time(), dry_run=dry_run):
        counts[one.topic][0] += 1
        counts[one.topic][1] += one.object.bytes
    objects, size = sum(n for n, _ in counts.values()), sum(b for _, b in counts.values())
    if as_json:
        by_topic = {topic: {"objects": n, "bytes": b} for topic, (n, b) in sorted(counts.items())}
        print_json({"deleted": objects, "bytes": size, "topics": by_topic, "dry_run": dry_run})
        return
    for topic, (n, b) in sorted(counts.items()):
        out.print(f"{topic:<26} {n} objects, {b} bytes", markup=False)
    out.print(f"{objects} objects {'would be ' if dry_run else ''}deleted, {size} bytes", markup=False)


@claims_app.command("list")
def claims_list(store: Store = None, as_json: Json = False) -> None:
    """Say how many objects of each topic there are, how large, and how old the oldest is.

    Examples: `penstock claims list`, `penstock claims list --store file:///var/lib/penstock/claims --json`
    """
    now_s = time.time()
    counts: defaultdict[str, int] = defaultdict(int)
    sizes: defaultdict[str, int] = defaultdict(int)
    oldest: defaultdict[str, float] = defaultdict(lambda: now_s)
    for found in _opened(store).list():
        topic = topic_of_object(found.name) or "other"
        counts[topic] += 1
        sizes[topic] += found.bytes
        oldest[topic] = min(oldest[topic], found.modified_s)
    rows = [
        {"topic": topic, "objects": counts[topic], "bytes": sizes[topic], "oldest_s": round(now_s - oldest[topic])}
        for topic in sorted(counts)
    ]
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "objects", "bytes", "oldest"):
        table.add_column(heading)
    for topic in sorted(counts):
        age = f"{(now_s - oldest[topic]) / 3600:.1f} h"
        table.add_row(printable(topic), str(counts[topic]), str(sizes[topic]), age)
    out.print(table if rows else "the store is empty")


def _opened(url: str | None) -> ClaimStore:
    if not url:
        raise CommandError(f"no claim store: give --store, or set {VARIABLE} as the services have it")
    return open_store(url)
