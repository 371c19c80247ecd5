"""`penstock.contracts.request`: strict about types and ranges; what the API's two spellings come to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from penstock.contracts.request import ChatMessage, CompletionRequest

USER = {"role": "user", "content": "Hello"}


def read(body: dict[str, Any]) -> CompletionRequest:
    return CompletionRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("validate", [CompletionRequest.model_validate, read])
def test_parsed_json_and_json_text_are_taken_alike(validate: Any) -> None:
    request = validate({"messages": [USER, {"role": "assistant", "content": "Hi"}], "stop": ["a", "b"]})
    assert request.messages[1] == ChatMessage(role="assistant", content="Hi")
    assert request.stop_strings == ("a", "b")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": [USER], "prompt": "x"}, None),
        ({}, None),
        ({"prompt": "x", "max_tokens": 1, "max_completion_tokens": 1}, None),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 131_073}, "max_tokens"),
        ({"prompt": "x", "max_tokens": True}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 1.0}, "max_tokens"),
        ({"prompt": "x", "temperature": "0.5"}, "temperature"),
        ({"prompt": "x", "temperature": -0.1}, "temperature"),
        ({"prompt": "x", "seed": 2**63}, "seed"),
        ({"prompt": "x", "stream": 1}, "stream"),
        ({"prompt": "x", "stop": []}, None),
        ({"prompt": "x", "unknown": 1}, "unknown"),
        ({"prompt": "x", "tenant": "a\n"}, "tenant"),
        ({"prompt": "x", "metadata": {str(i): "v" for i in range(17)}}, "metadata"),
        ({"prompt": "x", "user": "u" * 257}, "user"),
        ({"messages": [USER] * 513}, "messages"),
        ({"messages": [USER | {"extra": 1}]}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"prompt": "x", "response_format": {"type": "yaml"}}, "response_format"),
    ],
)
def test_is_refused_at_the_field(body: dict[str, Any], field: str | None) -> None:
    if body == {"prompt": "x", "stop": []}:
        assert read(body).stop_strings == ()
        return
    with pytest.raises(ValidationError) as caught:
        read(body)
    location = caught.value.errors()[0]["loc"]
    assert (location[0] if location else None) == field


def test_whole_numbers_are_taken_where_numbers_are_asked_for() -> None:
    assert read({"prompt": "x", "temperature": 1, "top_p": 1}).temperature == 1.0


@pytest.mark.parametrize(("field", "limit"), [("max_tokens", 7), ("max_completion_tokens", 9)])
def test_the_limit_has_two_names(field: str, limit: int) -> None:
    assert read({"prompt": "x", field: limit}).output_limit == limit


def test_one_stop_string_and_none() -> None:
    assert read({"prompt": "x", "stop": "END"}).stop_strings == ("END",)
    assert read({"prompt": "x"}).stop_strings == ()
    assert read({"prompt": "x"}).output_limit is None


def test_text_parts_are_joined_by_line_feeds() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = read({"messages": [{"role": "user", "content": parts}]})
    assert request.messages is not None
    assert request.messages[0].text == "a\nb"
