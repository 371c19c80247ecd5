"""`penstock.contracts.base`: schema references, the wire form, and describing a value without quoting it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from penstock.contracts.base import shape
from penstock.contracts.errors import UnsupportedSchema
from penstock.contracts.events import Event, RequestContext, Source, TokensGenerated
from penstock.contracts.request import CompletionRequest


def test_a_schema_reference_names_message_and_version() -> None:
    assert TokensGenerated.schema_ref() == "penstock.tokens-generated/1"
    TokensGenerated.accepts("penstock.tokens-generated/1")


def test_events_are_read_one_version_ahead_and_requests_are_not() -> None:
    TokensGenerated.accepts("penstock.tokens-generated/2")
    CompletionRequest.accepts("penstock.completion-request/1")
    with pytest.raises(UnsupportedSchema) as caught:
        CompletionRequest.accepts("penstock.completion-request/2")
    assert (caught.value.code, caught.value.limit) == ("unsupported_schema_version", 1)


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("penstock.tokens-generated/3", "unsupported_schema_version"),
        ("penstock.tokens-generated/99999", "unsupported_schema_version"),
        ("penstock.request-finished/1", "unknown_schema"),
        ("penstock.tokens-generated/0", "unknown_schema"),
        ("penstock.tokens-generated/1\n", "unknown_schema"),
        ("penstock.tokens-generated", "unknown_schema"),
        ("", "unknown_schema"),
        ("x" * 5000, "unknown_schema"),
    ],
)
def test_another_schema_or_a_newer_version_is_refused(reference: str, code: str) -> None:
    with pytest.raises(UnsupportedSchema) as caught:
        TokensGenerated.accepts(reference)
    assert caught.value.code == code
    assert caught.value.field == "header schema"
    assert len(caught.value.message) < 300


def test_a_message_is_compact_json_without_absent_fields() -> None:
    message = TokensGenerated(request_id="r1", sequence=0, text="zoë")
    assert message.encode() == '{"request_id":"r1","sequence":0,"text":"zoë","index":0}'.encode()


def test_a_message_is_frozen() -> None:
    message = TokensGenerated(request_id="r1", sequence=0, text="a")
    with pytest.raises(ValidationError):
        message.text = "b"


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (None, "null"),
        (True, "a boolean"),
        (7, "a number"),
        (7.5, "a number"),
        ("secret", "a string of 6 characters"),
        (b"secret", "6 bytes"),
        ({"secret": 1}, "an object with 1 fields"),
        (["secret"], "an array of 1 items"),
        (object(), "a value of another type"),
    ],
)
def test_a_value_is_described_and_not_quoted(value: Any, described: str) -> None:
    assert shape(value) == described


def test_a_copy_having_other_values_is_what_model_copy_makes() -> None:
    tokens = TokensGenerated(request_id="r", sequence=0, text="a")
    copy = tokens.having(text="b", finish_reason="stop")
    assert copy == tokens.model_copy(update={"text": "b", "finish_reason": "stop"})
    assert copy.model_fields_set == {"request_id", "sequence", "text", "finish_reason"}
    assert copy.encode() == b'{"request_id":"r","sequence":0,"text":"b","index":0,"finish_reason":"stop"}'
    assert tokens.text == "a"
    with pytest.raises(ValidationError, match="frozen"):
        copy.text = "c"  # type: ignore[misc]  # the refusal is the test


def test_a_default_that_is_a_contract_is_shared_and_not_copied_each_time() -> None:
    context = RequestContext(
        request_id="r1", conversation_id="r1", submitted_ms=1, source=Source(topic="t", partition=0, offset=0)
    )
    assert Event(context=context).findings is Event(context=context).findings
