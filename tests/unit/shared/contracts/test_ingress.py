"""`penstock.contracts.ingress`: whose word counts for a request's identity, and ids for those that bring none."""

from __future__ import annotations

import pytest

from penstock.contracts.events import Source
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.ingress import context_of, request_id_of

SOURCE = Source(topic="llm.requests", partition=3, offset=118)


def test_headers_win_over_the_body_and_the_body_over_the_key() -> None:
    both = context_of(
        RequestHeaders(request_id="h1", conversation_id="hc", tenant="ht"),
        SOURCE,
        5,
        key=b"k1",
        body_request_id="b1",
        body_conversation_id="bc",
        body_tenant="bt",
    )
    assert (both.request_id, both.conversation_id, both.tenant) == ("h1", "hc", "ht")
    body = context_of(
        RequestHeaders(), SOURCE, 5, key=b"k1", body_request_id="b1", body_conversation_id="bc", body_tenant="bt"
    )
    assert (body.request_id, body.conversation_id, body.tenant) == ("b1", "bc", "bt")
    key = context_of(RequestHeaders(), SOURCE, 5, key=b"k1", body_request_id="b1")
    assert (key.request_id, key.conversation_id, key.tenant) == ("b1", "k1", "default")


@pytest.mark.parametrize("key", [None, b"", b"\xff\xfe", b"not an id", b"a\n", b"x" * 129])
def test_a_key_that_is_no_id_is_passed_over(key: bytes | None) -> None:
    context = context_of(RequestHeaders(request_id="h1"), SOURCE, 5, key=key, default_tenant="acme")
    assert context.conversation_id == "h1"
    assert context.tenant == "acme"


def test_a_derived_id_is_the_same_at_each_reading_and_of_this_place_alone() -> None:
    again = Source(topic="llm.requests", partition=3, offset=118)
    assert context_of(RequestHeaders(), SOURCE, 5).request_id == request_id_of(again)
    others = [
        Source(topic="llm.requests", partition=3, offset=119),
        Source(topic="llm.requests", partition=4, offset=118),
        Source(topic="x.llm.requests", partition=3, offset=118),
    ]
    assert len({request_id_of(source) for source in [SOURCE, *others]}) == 4


def test_a_record_without_a_timestamp_counts_from_zero() -> None:
    assert context_of(RequestHeaders(), SOURCE, -1).submitted_ms == 0
