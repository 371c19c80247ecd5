"""`penstock.contracts.headers`: what is well formed is parsed, what is not is refused by name and never quoted."""

from __future__ import annotations

import pytest

from penstock.contracts import headers
from penstock.contracts.errors import InvalidRequest
from penstock.contracts.events import RequestContext, Source
from penstock.contracts.headers import MAX_DEADLINE_MS, RawHeaders, RequestHeaders

GOOD: list[tuple[str, bytes | str | None]] = [
    ("request-id", b"order-4711"),
    ("conversation-id", b"chat:77"),
    ("tenant", "acme"),
    ("priority", b"bulk"),
    ("deadline", b"1767225600000"),
    ("schema", b"penstock.completion-request/1"),
    ("attempt", b"2"),
    ("redrive-of", b"acme.llm.requests/3/17"),
    ("foreign", b"\xff\xfe"),
]


def test_parses_what_is_there() -> None:
    assert RequestHeaders.parse(GOOD) == RequestHeaders(
        request_id="order-4711",
        conversation_id="chat:77",
        tenant="acme",
        priority="bulk",
        deadline_ms=1767225600000,
        schema="penstock.completion-request/1",
        attempt=2,
        redrive_of="acme.llm.requests/3/17",
    )


@pytest.mark.parametrize("raw", [None, [], [("request-id", None)], [("other", b"x")]])
def test_none_where_upstream_gave_none(raw: RawHeaders | None) -> None:
    assert RequestHeaders.parse(raw) == RequestHeaders()


def test_the_last_of_a_name_counts() -> None:
    assert RequestHeaders.parse([("tenant", b"a"), ("tenant", b"b")]).tenant == "b"


@pytest.mark.parametrize("name", ["request-id", "conversation-id", "tenant"])
@pytest.mark.parametrize(
    "value",
    [b"", b" ", b"has space", b"-first", b"a\n", b"a\0b", "zoë".encode(), b"x" * 129, b"\xff\xfe", b"x" * 2000],
)
def test_an_ill_formed_id_is_refused(name: str, value: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        RequestHeaders.parse([(name, value)])
    assert caught.value.code == "invalid_header"
    assert caught.value.field == f"header {name}"
    assert caught.value.limit is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deadline", b"tomorrow"),
        ("deadline", b"-1"),
        ("deadline", b"1.5"),
        ("deadline", b""),
        ("deadline", "١٢".encode()),
        ("deadline", str(MAX_DEADLINE_MS + 1).encode()),
        ("deadline", b"0" * 20 + b"9" * 30),
        ("deadline", b"9" * 1000),
        ("attempt", b"two"),
        ("attempt", b"1000001"),
        ("priority", b"urgent"),
        ("redrive-of", b"3:17"),
        ("redrive-of", b""),
        ("redrive-of", b"a b/1/2"),
        ("redrive-of", b"t/1/2\n"),
        ("redrive-of", b"t/-1/2"),
        ("priority", b"BULK"),
    ],
)
def test_an_ill_formed_number_or_priority_is_refused(name: str, value: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        RequestHeaders.parse([(name, value)])
    assert caught.value.field == f"header {name}"


def test_a_refusal_never_quotes_the_value() -> None:
    with pytest.raises(InvalidRequest) as caught:
        RequestHeaders.parse([("tenant", b"erika@example.org")])
    assert "erika" not in str(caught.value) + str(caught.value.limit)


@pytest.mark.parametrize("value", [b"0", b"000", str(MAX_DEADLINE_MS).encode()])
def test_the_whole_range_of_a_deadline_is_taken(value: bytes) -> None:
    assert RequestHeaders.parse([("deadline", value)]).deadline_ms == int(value)


def test_salvage_keeps_the_well_formed_ones() -> None:
    raw = [("priority", b"\xff"), *GOOD, ("tenant", b"not a tenant"), ("deadline", b"soon"), ("attempt", b"\xff")]
    kept = RequestHeaders.salvage(raw)
    assert kept == RequestHeaders.parse(GOOD)
    assert RequestHeaders.salvage([("tenant", b"not a tenant")]) == RequestHeaders()
    assert RequestHeaders.salvage(None) == RequestHeaders()


def test_what_is_written_is_parsed_again() -> None:
    context = RequestContext(
        request_id="r1",
        conversation_id="c1",
        tenant="acme",
        priority="bulk",
        deadline_ms=17,
        submitted_ms=1,
        source=Source(topic="t", partition=0, offset=0),
    )
    parsed = RequestHeaders.parse(headers.of_context(context, "penstock.x/1", attempt=3))
    assert parsed == RequestHeaders("r1", "c1", "acme", "bulk", 17, "penstock.x/1", 3)
    without = RequestHeaders.parse(headers.of_context(context.model_copy(update={"deadline_ms": None}), "penstock.x/1"))
    assert without.deadline_ms is None


def test_cloud_events_has_the_required_attributes() -> None:
    written = dict(headers.cloud_event("id", "penstock/safety", "penstock.x/1", "2026-01-01T00:00:00.000+00:00"))
    assert {"ce_specversion", "ce_id", "ce_source", "ce_type"} <= written.keys()
    assert written["ce_specversion"] == b"1.0"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attempt": b"3"},
        {"deadline": b"17"},
        {"deadline": b"x"},
        {"tenant": b"not a tenant"},
        {"tenant": None},
        {"conversation-id": b"c\n"},
        {"request-id": b"\xff"},
        {"priority": b"urgent"},
        {"redrive-of": b"t/0/1"},
        {"redrive-of": b"nowhere"},
        {"schema": None},
        {"schema": b"\xff"},
        {"schema": b"p" * 2000},
    ],
)
def test_what_services_wrote_is_what_parsing_would_say(changes: dict[str, bytes | None]) -> None:
    context = RequestContext(
        request_id="r", conversation_id="c", submitted_ms=1, source=Source(topic="t", partition=0, offset=0)
    )
    schema = "penstock.request-screened/1"
    found = {**dict(headers.of_context(context, schema)), "ce_id": b"x", **changes}
    if headers.written_for(schema.encode(), found):
        assert RequestHeaders.parse(found.items()).schema == schema
    else:
        assert changes  # what was not changed is recognized


def test_an_events_headers_are_those_of_its_context_and_its_cloud_event() -> None:
    schema = "penstock.request-screened/1"
    for deadline in (None, 5):
        context = RequestContext(
            request_id="r",
            conversation_id="c",
            tenant="t",
            priority="bulk",
            deadline_ms=deadline,
            submitted_ms=1,
            source=Source(topic="t", partition=0, offset=0),
        )
        at = "2026-01-01T00:00:00.000+00:00"
        apart = headers.of_context(context, schema) + headers.cloud_event(
            "r/penstock.request-screened", "penstock/safety", schema, at
        )
        assert sorted(headers.of_event(context, schema, "penstock/safety", at)) == sorted(apart)
