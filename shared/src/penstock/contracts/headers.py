"""Kafka headers of a request: what routing needs without parsing the body.

`traceparent` and `tracestate` are read and written by the runtime's propagator, not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

from penstock.contracts.errors import InvalidRequest
from penstock.contracts.events import Priority, RequestContext
from penstock.contracts.request import IDENTIFIER_PATTERN

REQUEST_ID = "request-id"
CONVERSATION_ID = "conversation-id"
TENANT = "tenant"
PRIORITY = "priority"
DEADLINE = "deadline"
SCHEMA = "schema"
ATTEMPT = "attempt"
DEAD_LETTER = "dead-letter"
REDRIVE_OF = "redrive-of"
"""Of a dead letter sent again: where the record stood that it was."""
REDRIVEN = "redriven"
"""Of a marker on llm.dead-letters: which letter was sent again, and where to."""
NOT_BEFORE = "not-before"
RETRY_OF = "retry-of"
RETRY_CODE = "retry-code"
"""With `attempt`, of a record that waited to be tried again: see `penstock.contracts.delays`."""
REPLAY_OF = "replay-of"
"""Of a record that a replay copied: where the original stands."""

MAX_HEADER_BYTES = 1024
MAX_DEADLINE_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""

PLACE_PATTERN = r"^[A-Za-z0-9._-]{1,249}/[0-9]{1,9}/[0-9]{1,18}$"

_PLACE = re.compile(PLACE_PATTERN.removesuffix("$"))
_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)
_PRIORITIES: tuple[str, ...] = get_args(Priority)
_PLAIN_PRIORITIES = frozenset(priority.encode() for priority in _PRIORITIES)
_PRIORITY_HEADERS = {priority: (PRIORITY, priority.encode()) for priority in _PRIORITIES}
_KNOWN = frozenset((REQUEST_ID, CONVERSATION_ID, TENANT, PRIORITY, DEADLINE, SCHEMA, ATTEMPT, REDRIVE_OF))
_CLOUD_EVENT = (("ce_specversion", b"1.0"), ("content-type", b"application/json"))

RawHeaders = Iterable[tuple[str, bytes | str | None]]


def _invalid(name: str, expected: str, raw: str) -> InvalidRequest:
    return InvalidRequest(
        f"header {name}: expected {expected}, got {len(raw)} characters of another form",
        code="invalid_header",
        field=f"header {name}",
        limit=expected,
    )


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The parsed headers; None where upstream gave none. Build with `parse`."""

    request_id: str | None = None
    conversation_id: str | None = None
    tenant: str | None = None
    priority: Priority | None = None
    deadline_ms: int | None = None
    schema: str | None = None
    attempt: int = 0
    redrive_of: str | None = None

    @classmethod
    def parse(cls, raw: RawHeaders | None) -> RequestHeaders:
        """Parse what is there; raises InvalidRequest naming the first header of a wrong type or form."""
        values = _texts(raw or ())
        for name in (REQUEST_ID, CONVERSATION_ID, TENANT):
            if name in values and not _IDENTIFIER.fullmatch(values[name]):
                raise _invalid(name, "1 to 128 letters, digits and . _ : -", values[name])
        priority = values.get(PRIORITY)
        if priority is not None and priority not in _PRIORITIES:
            raise _invalid(PRIORITY, " or ".join(_PRIORITIES), priority)
        deadline = _integer(values, DEADLINE, MAX_DEADLINE_MS)
        attempt = _integer(values, ATTEMPT, 1_000_000)
        redrive_of = values.get(REDRIVE_OF)
        if redrive_of is not None and not _PLACE.fullmatch(redrive_of):
            raise _invalid(REDRIVE_OF, "TOPIC/PARTITION/OFFSET", redrive_of)
        return cls(
            request_id=values.get(REQUEST_ID),
            conversation_id=values.get(CONVERSATION_ID),
            tenant=values.get(TENANT),
            priority=priority,  # type: ignore[arg-type]  # membership was checked two lines above
            deadline_ms=deadline,
            schema=values.get(SCHEMA),
            attempt=attempt or 0,
            redrive_of=redrive_of,
        )

    @classmethod
    def salvage(cls, raw: RawHeaders | None) -> RequestHeaders:
        """What can be kept of headers that `parse` refuses: each well-formed header, nothing of the others."""
        kept: dict[str, bytes | str | None] = {}
        for name, value in raw or ():
            try:
                cls.parse([(name, value)])
            except InvalidRequest:
                continue
            kept[name] = value
        return cls.parse(kept.items())


def written_for(schema: bytes, found: Mapping[str, bytes | None]) -> bool:
    """Whether headers say this schema and are as services write them: then `RequestHeaders.parse` need not look.

    `found` has the last value of each name.
    """
    try:
        return (
            found[SCHEMA] == schema
            and found[ATTEMPT] == b"0"
            and found[PRIORITY] in _PLAIN_PRIORITIES
            and _is_identifier(found[REQUEST_ID]) is not None  # type: ignore[arg-type]  # None raises: caught
            and _is_identifier(found[CONVERSATION_ID]) is not None  # type: ignore[arg-type]  # likewise
            and _is_known_identifier(found[TENANT])
            and DEADLINE not in found
            and REDRIVE_OF not in found
        )
    except (KeyError, TypeError):
        return False


_is_identifier = re.compile(IDENTIFIER_PATTERN.removesuffix("$").encode()).fullmatch


@lru_cache(maxsize=1_024)
def _is_known_identifier(value: bytes | None) -> bool:
    return value is not None and _is_identifier(value) is not None


def _texts(raw: RawHeaders) -> dict[str, str]:
    """Our headers as text, the last of each name; foreign headers are left alone."""
    values: dict[str, str] = {}
    for name, value in raw:
        if name not in _KNOWN or value is None:
            continue
        if len(value) > MAX_HEADER_BYTES:
            raise InvalidRequest(
                f"header {name}: {len(value)} bytes, more than {MAX_HEADER_BYTES}",
                code="invalid_header",
                field=f"header {name}",
                limit=MAX_HEADER_BYTES,
            )
        try:
            values[name] = value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"header {name}: {len(value)} bytes that are not UTF-8",
                code="invalid_header",
                field=f"header {name}",
                limit="UTF-8 text",
            ) from None
    return values


def _integer(values: Mapping[str, str], name: str, most: int) -> int | None:
    raw = values.get(name)
    if raw is None:
        return None
    if not (raw.isascii() and raw.isdigit()) or len(raw) > 18 or int(raw) > most:
        raise _invalid(name, f"a whole number from 0 to {most}", raw)
    return int(raw)


def of_context(context: RequestContext, schema: str, attempt: int = 0) -> list[tuple[str, bytes]]:
    """The headers of an event, from its context."""
    headers = [
        (REQUEST_ID, context.request_id.encode()),
        (CONVERSATION_ID, context.conversation_id.encode()),
        (TENANT, context.tenant.encode()),
        (PRIORITY, context.priority.encode()),
        (SCHEMA, schema.encode()),
        (ATTEMPT, str(attempt).encode()),
    ]
    if context.deadline_ms is not None:
        headers.append((DEADLINE, str(context.deadline_ms).encode()))
    return headers


def cloud_event(event_id: str, source: str, schema: str, time_iso: str) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 attributes in Kafka binary mode."""
    return [
        *_CLOUD_EVENT,
        ("ce_id", event_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", schema.encode()),
        ("ce_time", time_iso.encode()),
    ]


def of_event(context: RequestContext, schema: str, source: str, time_iso: str) -> list[tuple[str, bytes | None]]:
    """`of_context` and `cloud_event` of an event that a service writes, at a third of their time.

    Its id is the request's and the schema's name, which no two records of one topic share.
    """
    request_id = context.request_id.encode()
    name, always = _always(schema, source, time_iso)
    headers: list[tuple[str, bytes | None]] = [
        (REQUEST_ID, request_id),
        (CONVERSATION_ID, context.conversation_id.encode()),
        _tenant(context.tenant),
        _PRIORITY_HEADERS[context.priority],
        *always,
        ("ce_id", b"%b/%b" % (request_id, name)),
    ]
    if context.deadline_ms is not None:
        headers.append((DEADLINE, str(context.deadline_ms).encode()))
    return headers


@lru_cache(maxsize=64)
def _always(schema: str, source: str, time_iso: str) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """What the events of one batch have in common."""
    fixed = [
        (SCHEMA, schema.encode()),
        (ATTEMPT, b"0"),
        *(header for header in cloud_event("", source, schema, time_iso) if header[0] != "ce_id"),
    ]
    return schema.rpartition("/")[0].encode(), tuple(fixed)


@lru_cache(maxsize=1_024)
def _tenant(tenant: str) -> tuple[str, bytes]:
    return TENANT, tenant.encode()
