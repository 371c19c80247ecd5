"""`topics`, `trace`, `dlq`: what is on the broker and what became of one request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from penstock.cli import letter_filter
from penstock.cli.claims_commands import claims_app
from penstock.cli.dead_letters import Letter, body_of, find, newest_letters
from penstock.cli.durations import show_ms
from penstock.cli.errors import NotFound
from penstock.cli.options import Bootstrap, Json, Prefix, print_json, progress_bar
from penstock.cli.reading import by_request_id, result_of
from penstock.cli.redrive_command import dlq_redrive
from penstock.cli.render import err, out, printable, result_line
from penstock.cli.sending import wall_ms
from penstock.cli.state import StateFolder
from penstock.cli.target import Target, resolve
from penstock.cli.tracing import tree
from penstock.cli.viewer import Viewer, recognize
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import RESULTS, load_topics
from penstock.runtime import topics as broker_topics

topics_app = typer.Typer(no_args_is_help=True, help="The topics that Penstock uses, and bringing a broker to them.")
dlq_app = typer.Typer(
    no_args_is_help=True, help="Dead letters: what could not be processed, why, and sending it again."
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(trace)
    app.add_typer(topics_app, name="topics")
    app.add_typer(dlq_app, name="dlq")
    app.add_typer(claims_app, name="claims")
    dlq_app.command("redrive")(dlq_redrive)


@topics_app.command("apply")
def topics_apply(
    replication: Annotated[
        int, typer.Option("--replication", min=-1, help="Replicas of new topics; -1 takes the broker's default.")
    ] = -1,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Create what is missing and correct what differs; nothing is ever deleted. Doing it again changes nothing.

    Examples: `penstock topics apply`, `penstock topics apply --bootstrap broker:9092 --replication 3`
    """
    target = resolve(bootstrap, prefix)
    target.reach()
    changes = broker_topics.apply(
        target.bootstrap, target.prefix, replication=replication, options=target.admin_options
    )
    if as_json:
        print_json({"changes": [{"topic": change.topic, "what": change.what} for change in changes]})
        return
    for change in changes:
        out.print(f"{change.topic:<32} {change.what}", markup=False)
    out.print(f"{len(changes)} changes on {target.bootstrap}" if changes else "nothing to change", markup=False)


@topics_app.command("list")
def topics_list(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the declared topics and how each stands on the broker.

    Examples: `penstock topics list`, `penstock topics list --json`
    """
    target = resolve(bootstrap, prefix)
    target.reach()
    present = broker_topics.describe(target.bootstrap, target.prefix, target.admin_options)
    rows: list[dict[str, Any]] = [
        {
            "topic": target.topic(topic.name),
            "partitions": present.get(target.topic(topic.name)),
            "declared_partitions": topic.partitions,
            "retention_hours": topic.retention_hours,
            "cleanup": topic.cleanup,
            "restricted": topic.restricted,
            "message": topic.message,
            "description": topic.description,
        }
        for topic in load_topics()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "partitions", "kept", "cleanup", "access", "holds"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row["topic"],
            "[red]missing[/]" if row["partitions"] is None else str(row["partitions"]),
            f"{row['retention_hours']} h" if row["retention_hours"] else "compacted",
            row["cleanup"],
            "[yellow]restricted[/]" if row["restricted"] else "open",
            escape(row["description"]),
        )
    out.print(table)
    if any(row["partitions"] is None for row in rows):
        err.print("create what is missing with `penstock topics apply`", markup=False)


def trace(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID")],
    viewer: Annotated[
        str | None,
        typer.Option(
            "--viewer", envvar="PENSTOCK_VIEWER_URL", metavar="URL", help="Zipkin or Jaeger; else the local stack's."
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show one request's way through the pipeline as a tree of spans, from the trace viewer.

    Without a viewer, the times in the result are shown instead.

    Examples: `penstock trace ID`, `penstock trace ID --viewer http://jaeger:16686`
    """
    target = resolve(bootstrap, prefix)
    result = _result(target, request_id)
    shown_by = _viewer(viewer)
    if shown_by is None or result.trace_id is None:
        why = "no trace viewer is known: give --viewer URL" if shown_by is None else "the request was not traced"
        if as_json:
            print_json({"request_id": request_id, "trace_id": result.trace_id, "spans": None, "why": why})
            return
        err.print(f"{why}; the times in the result:", markup=False)
        _print_timings(result)
        return
    spans = shown_by.fetch(result.trace_id)
    link = shown_by.link(result.trace_id)
    if as_json:
        fields = ("span_id", "parent_id", "name", "service", "start_us", "duration_us", "error")
        listed = [{field: getattr(span, field) for field in fields} for span in spans]
        print_json({"request_id": request_id, "trace_id": result.trace_id, "link": link, "spans": listed})
        return
    out.print(result_line(result))
    out.print(tree(spans, f"trace {result.trace_id}"))
    out.print(link, markup=False)


@dlq_app.command("list")
def dlq_list(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many of the newest.")] = 50,
    filters: Annotated[list[str] | None, typer.Option("--filter", metavar="KEY=VALUE", help=letter_filter.HELP)] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """List dead letters, oldest first: where, which request, which stage, why, and when they were sent again.

    Examples: `penstock dlq list`, `penstock dlq list --limit 5 --json`, `penstock dlq list --filter attempts=5+`
    """
    meant = letter_filter.parse(filters or [], wall_ms())
    target = resolve(bootstrap, prefix)
    with progress_bar("reading", None, unit="records") as tell:
        letters = newest_letters(target, limit, takes=meant.takes, progress=tell)
    if as_json:
        print_json([letter.described() for letter in letters])
        return
    if not letters:
        err.print("no dead letters", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("place", "request", "stage", "error", "attempts", "bytes", "failed at", "redriven"):
        table.add_column(heading)
    for letter in letters:
        known = letter.metadata
        table.add_row(
            letter.place,
            escape(printable(known.request_id)),
            escape(known.stage),
            escape(known.error.code),
            str(known.attempts),
            "tombstone" if letter.value is None else str(letter.bytes),
            _instant(known.failed_ms),
            _redriven(letter),
        )
    out.print(table)
    out.print("one of them: `penstock dlq show PLACE` or `penstock dlq show REQUEST_ID`", markup=False)


@dlq_app.command("show")
def dlq_show(
    which: Annotated[str, typer.Argument(metavar="REQUEST_ID|PARTITION:OFFSET")],
    body: Annotated[
        bool, typer.Option("--body", help="Write the original bytes to standard output. Restricted: personal data.")
    ] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show a dead letter: the stage, the reason, attempts, the trace; the original bytes only with `--body`.

    Examples: `penstock dlq show ID`, `penstock dlq show 3:17 --body > original.json`
    """
    target = resolve(bootstrap, prefix)
    with progress_bar("reading", None, unit="records") as tell:
        letters = find(target, which, progress=tell)
    if body:
        if len(letters) > 1:
            places = ", ".join(letter.place for letter in letters)
            raise NotFound(f"{which} has {len(letters)} dead letters; name one by its place: {places}")
        err.print("restricted: these bytes may hold personal data", style="yellow", markup=False)
        typer.get_binary_stream("stdout").write(body_of(letters[0], target) or b"")
        return
    for letter in letters:
        if as_json:
            print_json(letter.described())
        else:
            _print_letter(letter)


def _print_letter(letter: Letter) -> None:
    known = letter.metadata
    rows = {
        "place": letter.place,
        "request": printable(known.request_id),
        "tenant": printable(known.tenant),
        "stage": known.stage,
        "error": f"{known.error.code}: {printable(known.error.message)}",
        "field": known.error.field,
        "limit": known.error.limit,
        "attempts": known.attempts,
        "source": f"{known.source.topic} {known.source.partition}:{known.source.offset}",
        "written": _instant(known.original_timestamp_ms),
        "failed": _instant(known.failed_ms),
        "trace": known.trace_id,
        "redriven": _redriven(letter) or None,
        "headers": ", ".join(printable(name) for name in letter.header_names) or "none",
        "claim": letter.claim.object if letter.claim is not None else None,
        "bytes": "none (a tombstone)" if letter.value is None else f"{letter.bytes}, shown with --body",
    }
    for name, value in rows.items():
        if value is not None:
            out.print(f"{name:<9} {value}", markup=False)


def _redriven(letter: Letter) -> str:
    if not letter.redriven:
        return ""
    times = f", {len(letter.redriven)} times" if len(letter.redriven) > 1 else ""
    return f"{_instant(letter.redriven[-1].at_ms)}{times}"


def _instant(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _result(target: Target, request_id: str) -> RequestFinished:
    with progress_bar("reading results", None, unit="records") as tell:
        found = by_request_id(target, RESULTS, request_id, progress=tell)
    if not found:
        raise NotFound(
            f"no result of request {request_id} on {target.topic(RESULTS)}: it is not finished yet, or older than the "
            "topic keeps; `penstock results` lists what there is"
        )
    return result_of(found[-1], target.claims)


def _viewer(url: str | None) -> Viewer | None:
    if url is not None:
        return recognize(url)
    state = StateFolder.configured().load()
    if state is None or state.viewer is None:
        return None
    return Viewer(state.viewer.address, state.viewer.viewer)


def _print_timings(result: RequestFinished) -> None:
    out.print(result_line(result))
    for timing in result.timings:
        out.print(
            f"  {timing.stage:<12} waited {show_ms(timing.queued_ms):>9}, worked {show_ms(timing.processing_ms):>9}",
            markup=False,
        )
