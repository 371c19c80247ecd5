"""The committed JSON Schemas: what the models say, and as strict about a request as the model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from penstock.contracts import export
from penstock.contracts.request import CompletionRequest
from penstock.contracts.topics import MESSAGES

CONTRACTS = Path(__file__).parents[2] / "docs/contracts"


def test_the_committed_files_are_what_the_models_say_and_break_nothing() -> None:
    assert export.check(CONTRACTS) == []


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_is_a_valid_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(export.json_schema(MESSAGES[name]))


USER = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ({"prompt": "Hello"}, True),
        ({"messages": [USER]}, True),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}, True),
        ({"prompt": "Hello", "messages": None, "max_tokens": 1, "stop": "x", "seed": 0, "stream": False}, True),
        ({}, False),
        ({"prompt": None}, False),
        ({"prompt": "Hello", "messages": [USER]}, False),
        ({"messages": []}, False),
        ({"messages": [{"role": "user"}]}, False),
        ({"messages": [{"role": "wizard", "content": "Hello"}]}, False),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]}, False),
        ({"prompt": 7}, False),
        ({"prompt": "Hello", "temperature": 2.1}, False),
        ({"prompt": "Hello", "top_p": 0}, False),
        ({"prompt": "Hello", "max_tokens": 0}, False),
        ({"prompt": "Hello", "max_tokens": "5"}, False),
        ({"prompt": "Hello", "stop": ["a", "b", "c", "d", "e"]}, False),
        ({"prompt": "Hello", "stop": ""}, False),
        ({"prompt": "Hello", "n": 9}, False),
        ({"prompt": "Hello", "request_id": "has space"}, False),
        ({"prompt": "Hello", "temprature": 1}, False),
        ({"prompt": "Hello", "metadata": {"a": 1}}, False),
    ],
)
def test_schema_and_model_agree_on_a_request(body: dict[str, Any], good: bool) -> None:
    by_schema = Draft202012Validator(export.json_schema(CompletionRequest)).is_valid(body)
    try:
        CompletionRequest.model_validate_json(json.dumps(body))
    except ValidationError:
        by_model = False
    else:
        by_model = True
    assert (by_schema, by_model) == (good, good)
