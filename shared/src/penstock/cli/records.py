"""From the lines of a JSON Lines file to records for `llm.requests`: ids, keys, headers. Pure functions.

A line that is not a request is sent as it stands, because refusing it, with a typed error on
`llm.results`, is the pipeline's work. Publishing is left to `sending`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from penstock.contracts import headers
from penstock.contracts.errors import LimitExceeded
from penstock.contracts.events import Priority
from penstock.contracts.request import IDENTIFIER_PATTERN, CompletionRequest
from penstock.contracts.topics import REQUESTS, load_topics

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)
_ID_FIELD = re.compile(rb'("request_id"\s*:\s*")([A-Za-z0-9._:\-]{1,128})(")')
_ROOM_FOR_FRAMING = 512
"""Bytes that a record batch adds to key, value and headers, with room to spare."""
_MAX_ID = 128


def hard_limit() -> int:
    """The most bytes that a record of `llm.requests` may have, from the topic file."""
    return next(topic.max_message_bytes for topic in load_topics() if topic.name == REQUESTS)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the input, without its line end. `value` is None where `size` is over the limit."""

    number: int
    size: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record ready to be published."""

    line: int
    request_id: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    well_formed: bool
    """The line is a JSON object whose ids, where it has them, are well formed."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What one run of `send` puts on its records."""

    stem: str
    """The input's name, the first part of generated ids."""
    run: str
    """Makes ids new in each run: the generated ones always, those in the bodies where `unique_ids` is set."""
    tenant: str | None = None
    priority: Priority | None = None
    deadline_ms: int | None = None
    """Absolute, milliseconds since the epoch."""
    unique_ids: bool = False
    """Append the run to the ids in the bodies as well; headers and body must name the same id."""
    stream: bool = False
    """Ask for a stream where a request does not say whether it wants one."""


def read_lines(stream: BinaryIO, limit: int) -> Iterator[Line]:
    """The lines that are not blank, each of at most `limit` bytes in memory at a time."""
    number = 0
    while raw := stream.readline(limit + 2):
        number += 1
        size = len(raw)
        value: bytes | None = raw.removesuffix(b"\n").removesuffix(b"\r")
        if not raw.endswith(b"\n") and size > limit:
            while rest := stream.readline(1 << 20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            value = None
        if value is None or value.strip():
            yield Line(number, size, value)


def compose(line: Line, stamp: Stamp, now_ms: int, *, limit: int | None = None) -> Outgoing:
    """The record of one line; `limit` is for values that go to a claim store, else the topic's holds.

    Raises LimitExceeded where it would be refused for its size, so that the sender knows at once.
    """
    limit = hard_limit() if limit is None else limit
    if line.value is None:
        raise _too_long(line, limit)
    body = parse_object(line.value)
    generated = f"{stem_of(stamp.stem)}-{line.number:03d}-{stamp.run}"
    request_id = identifier(body, "request_id") if body is not None else None
    value = line.value
    if request_id is not None and stamp.unique_ids:
        fresh = with_run(request_id, stamp.run)
        value = _replace_id(value, request_id, fresh, body or {})
        request_id = fresh
    if stamp.stream and body and "stream" not in body:
        value = value.replace(b"{", b'{"stream": true, ', 1)  # what stands there else stays byte for byte
    well_formed = body is not None and not (request_id is None and body.get("request_id") is not None)
    chosen = request_id or generated
    conversation = identifier(body, "conversation_id") if body is not None else None
    outgoing = Outgoing(
        line=line.number,
        request_id=chosen,
        key=(conversation or chosen).encode(),
        value=value,
        headers=tuple(_headers(chosen, stamp, now_ms, well_formed=well_formed)),
        well_formed=well_formed,
    )
    framed = sum(len(name) + len(content) + 10 for name, content in outgoing.headers)
    if len(value) + len(outgoing.key) + framed + _ROOM_FOR_FRAMING > limit:
        raise _too_long(line, limit)
    return outgoing


def parse_object(value: bytes) -> dict[str, Any] | None:
    """The line as a JSON object, None where it is anything else."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return None  # the pipeline says what is wrong with it
    return parsed if isinstance(parsed, dict) else None


def identifier(body: dict[str, Any], field: str) -> str | None:
    """A well-formed id in the body, None where it is absent or of another form."""
    value = body.get(field)
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def with_run(request_id: str, run: str) -> str:
    """The id with the run appended, within the length that ids may have."""
    return f"{request_id[: _MAX_ID - len(run) - 1]}-{run}"


def stem_of(name: str) -> str:
    """The input's name as the beginning of an id."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64]
    return cleaned or "line"


def _replace_id(value: bytes, old: str, new: str, body: dict[str, Any]) -> bytes:
    # The bytes of the line are kept where the id stands in them once: writing the parsed object anew
    # would change numbers, escapes and repeated keys that the pipeline is to judge.
    places = _ID_FIELD.findall(value)
    if len(places) == 1 and places[0][1] == old.encode():
        return _ID_FIELD.sub(lambda found: found[1] + new.encode() + found[3], value)
    return json.dumps({**body, "request_id": new}).encode()


def _headers(request_id: str, stamp: Stamp, now_ms: int, *, well_formed: bool) -> Iterator[tuple[str, bytes]]:
    yield headers.REQUEST_ID, request_id.encode()
    if stamp.tenant is not None:
        yield headers.TENANT, stamp.tenant.encode()
    if stamp.priority is not None:
        yield headers.PRIORITY, stamp.priority.encode()
    if stamp.deadline_ms is not None:
        yield headers.DEADLINE, str(stamp.deadline_ms).encode()
    if well_formed:
        schema = CompletionRequest.schema_ref()
        written = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
        yield headers.SCHEMA, schema.encode()
        yield from headers.cloud_event(request_id, "/penstock/send", schema, written)


def _too_long(line: Line, limit: int) -> LimitExceeded:
    return LimitExceeded(
        f"line {line.number}: {line.size} bytes with headers and framing exceed {limit} bytes, the most that a record "
        "of llm.requests may have; shorten the request, or see PENSTOCK_CLAIM_STORE and PENSTOCK_CLAIM_MAX_BYTES",
        code="record_too_large",
        field=f"line {line.number}",
        limit=limit,
    )
