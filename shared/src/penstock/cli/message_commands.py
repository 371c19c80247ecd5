"""`send` and `results`."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from penstock.cli.options import Bootstrap, Json, Prefix, ShowAnswers, duration, print_json, progress_bar
from penstock.cli.reading import LiveResults, Read, by_request_id, newest, result_of
from penstock.cli.records import Line, Stamp, read_lines
from penstock.cli.render import Telling, err, out, result_line, summary
from penstock.cli.sending import Sending, wall_ms
from penstock.cli.sent import Sent
from penstock.cli.target import resolve
from penstock.cli.tracer import traced
from penstock.contracts.errors import InvalidRequest
from penstock.contracts.headers import PRIORITY, TENANT, RequestHeaders
from penstock.contracts.results import RequestFinished
from penstock.contracts.streams import TokensRestored
from penstock.contracts.topics import RESULTS


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(send)
    app.command()(results)


def send(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl|-", help="One request a line; - reads standard input.")],
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose requests these are.")] = None,
    priority: Annotated[
        str | None, typer.Option("--priority", help="`interactive` or `bulk`, which goes to `llm.requests.bulk`.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="Give up on a request after this long, e.g. 30s.")
    ] = None,
    unique_ids: Annotated[
        bool,
        typer.Option("--unique-ids", help="Add this run's mark to the request ids, so that a file can be sent again."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for all results and print each as it arrives.")] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Ask for streamed answers, wait, and show the text as it comes, screened and restored: it may hold "
            "personal data.",
        ),
    ] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait after sending, e.g. 90s or 1h.")] = "5m",
    show_answers: ShowAnswers = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Send each line of a JSON Lines file to `llm.requests`.

    A line that is no valid request is sent as it is: its result says what is wrong with it. A body without a
    `request_id` is given one: file name, line number and a mark of this run.

    Exit status 0 where all were delivered and, with `--wait` or `--stream`, each has its terminal result.

    Examples: `penstock send requests.jsonl --wait`, `cat requests.jsonl | penstock send - --priority bulk`,
    `echo '{"prompt": "What is Kafka?"}' | penstock send - --stream`
    """
    seconds = duration(deadline)
    stamp = Stamp(
        stem="stdin" if file == "-" else Path(file).stem,
        run=new_run(),
        tenant=tenant,
        priority=_headers_of(tenant, priority).priority,
        deadline_ms=None if seconds is None else wall_ms() + round(seconds * 1000),
        unique_ids=unique_ids,
        stream=stream,
    )
    wait = wait or stream
    limit_s = duration(timeout) or 0.0
    target = resolve(bootstrap, prefix)

    telling = Telling()

    def show(result: RequestFinished, line: int) -> None:
        if as_json:
            print_json({"line": line, "result": result.model_dump(mode="json", exclude_none=True)})
        else:
            telling.interrupt()
            out.print(result_line(result, answer=show_answers))

    def tell(piece: TokensRestored) -> None:
        if as_json:
            print_json({"line": sending.sent.line_of[piece.request_id], "piece": json.loads(piece.encode())})
        else:
            telling.tell(piece)

    with _opened(file) as (lines, size), traced(target):
        sending = Sending(target, stamp, wait=wait, on_result=show if wait else None, on_piece=tell if stream else None)
        with sending:
            run_sending(sending, lines, size, wait_s=limit_s if wait else None)
    sent = sending.sent
    if as_json:
        print_json({"summary": summary_json(sent, waited=wait)})
    else:
        for said in summary(sent, waited=wait):
            out.print(said)
    if not (sent.ok if wait else not sent.refused):
        raise typer.Exit(1)


def run_sending(sending: Sending, stream: BinaryIO, size: int | None, *, wait_s: float | None) -> None:
    """Send the stream's lines under a progress bar; then wait for results, where `wait_s` is given."""
    read = 0

    def passed(lines: Iterator[Line], tell: Callable[[int, int | None], None]) -> Iterator[Line]:
        nonlocal read
        for line in lines:
            yield line
            read += line.size
            tell(read, size)

    with progress_bar("sending", size, unit="bytes") as tell:
        sending.send(passed(read_lines(stream, sending.limit), tell))
    if wait_s is None:
        return
    sent = sending.sent
    with progress_bar("results", len(sent.line_of), unit="records") as tell:
        until = time.monotonic() + wait_s
        while sending.waiting and (left := until - time.monotonic()) > 0:
            sending.wait(min(left, 0.25))
            tell(len(sent.results), None)


def new_run() -> str:
    """The mark of one run: letters and digits, different each time."""
    return secrets.token_hex(4)


def summary_json(sent: Sent, *, waited: bool) -> dict[str, Any]:
    """What became of a run, for programs."""
    return {
        "lines": sent.lines,
        "delivered": sent.delivered,
        "refused": [{"line": one.line, "code": one.code, "message": one.message} for one in sent.refused],
        "duplicates": sent.duplicates,
        **({"statuses": sent.statuses, "missing": sent.missing, "repeated": sent.repeated} if waited else {}),
    }


def results(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new results until interrupted.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, max=100_000, help="How many of the newest.")] = 20,
    request_id: Annotated[str | None, typer.Option("--request-id", help="Only this request's.")] = None,
    show_answers: ShowAnswers = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show terminal results from `llm.results`, read committed, oldest first.

    Examples: `penstock results --limit 5`, `penstock results --follow`, `penstock results --request-id ID --json`
    """
    target = resolve(bootstrap, prefix)

    def show(result: RequestFinished) -> None:
        if request_id is not None and result.id != request_id:
            return
        if as_json:
            print_json(result.model_dump(mode="json", exclude_none=True))
        else:
            out.print(result_line(result, answer=show_answers))

    live: LiveResults | None = LiveResults(target) if follow else None  # from before the look back, so none is lost
    with progress_bar("reading", None, unit="records") as tell:
        if request_id is not None:
            found = by_request_id(target, RESULTS, request_id, progress=tell)
        else:
            found = newest(target, RESULTS, limit, progress=tell) if limit else []
    shown = {(record.partition, record.offset) for record in found}
    for record in found:
        show(result_of(record, target.claims))
    if live is None:
        if not found and not as_json:
            err.print("no results" + (f" of request {request_id}" if request_id else ""), markup=False)
        if not found and request_id is not None:
            raise typer.Exit(1)
        return
    with live:
        _follow(live, lambda record: show(result_of(record, target.claims)), shown)


def _follow(live: LiveResults, show: Callable[[Read], None], shown: set[tuple[int, int]]) -> None:
    try:
        while True:
            for record in live.records(0.5):
                if (record.partition, record.offset) not in shown:
                    show(record)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return  # the one way to end following


def _headers_of(tenant: str | None, priority: str | None) -> RequestHeaders:
    """The options as headers would be read; what the pipeline would refuse is a usage error here."""
    given = [(TENANT, tenant), (PRIORITY, priority)]
    try:
        return RequestHeaders.parse([(name, value) for name, value in given if value is not None])
    except InvalidRequest as error:
        raise typer.BadParameter(error.message.replace("header ", "--", 1)) from None


@contextmanager
def _opened(file: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The input and its size in bytes, where it has one."""
    if file == "-":
        yield sys.stdin.buffer, None
        return
    path = Path(file)
    try:
        with path.open("rb") as stream:
            yield stream, path.stat().st_size if path.is_file() else None
    except OSError as error:
        if error.filename is None or Path(error.filename) != path:
            raise
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from None
