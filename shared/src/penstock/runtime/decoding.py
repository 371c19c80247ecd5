"""A record's value as the event that its topic carries."""

from __future__ import annotations

from functools import cache

from pydantic import ValidationError

from penstock.contracts.errors import StageError
from penstock.contracts.events import Event
from penstock.contracts.headers import SCHEMA, RequestHeaders, written_for
from penstock.runtime.stage import Record


def decode(record: Record, kind: type[Event]) -> Event:
    """The event in a record; raises UnsupportedSchema, InvalidRequest or StageError, none quoting the value."""
    if not written_for(_own_schema(kind), record.named):
        reference = RequestHeaders.parse(record.headers).schema
        if reference is not None:
            kind.accepts(reference)
    if record.value is None:
        raise StageError(f"a {kind.schema_name} record without a value", code="invalid_event", field="value")
    try:
        return kind.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise StageError(
            f"{where}: not a {kind.schema_ref()} ({first['type']}, {len(record.value)} bytes, "
            f"header {SCHEMA} {'present' if record.named.get(SCHEMA) else 'absent'})",
            code="invalid_event",
            field=where,
        ) from None


@cache
def _own_schema(kind: type[Event]) -> bytes:
    return kind.schema_ref().encode()
