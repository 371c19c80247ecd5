"""What the model is held to by inference is what postprocess checks: a schema that one follows, the other knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.generation import answers

from penstock.contracts.errors import InvalidRequest
from penstock.contracts.events import GenerationParameters, OutputFormat, PromptPart
from penstock_inference.backend import GenerationRequest
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits
from penstock_postprocess import structured

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-lm"


SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "patternProperties": {"^[ab]$": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {"abc": {"const": "<PERSON_1>"}},
        "patternProperties": {"^x[0-9]$": {"type": "boolean"}, "^y": False},
        "required": ["abc", "x1"],
        "additionalProperties": {"type": "null"},
    },
    {"type": "string", "pattern": r"^\p{Lu}[a-z]{2}$"},
]


@pytest.fixture(scope="module")
def backend() -> LocalBackend:
    return LocalBackend.load(TINY, Limits(rows=4))


def ask(key: int, document: dict[str, Any], temperature: float) -> GenerationRequest:
    output = OutputFormat(type="json_schema", json_schema=json.dumps(document))
    parameters = GenerationParameters(model="tiny", max_tokens=120, output=output, temperature=temperature)
    return GenerationRequest(key, (PromptPart(kind="text", text="the model"),), parameters, seed=key)


@pytest.mark.parametrize("document", SCHEMAS, ids=range(len(SCHEMAS)))
def test_what_is_generated_under_a_schema_passes_its_check(backend: LocalBackend, document: dict[str, Any]) -> None:
    found = answers(backend, *(ask(key, document, key / 4) for key in range(8)))
    whole = [text for text, reason in found.values() if reason == "stop"]
    assert whole
    for text in whole:
        value, repair = structured.parse(text, scalars=True)
        assert repair is None
        structured.check(value, document)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"patternProperties": {"^a(?=b)": {}}}, "look-around"),
        ({"patternProperties": {"^a": {}}, "unevaluatedProperties": False}, "held to unevaluatedProperties"),
        ({"patternProperties": {"^a": {"type": "integer"}, "b$": {"minimum": 3}}}, "patternProperties match the same"),
    ],
)
def test_a_schema_that_the_model_cannot_be_held_to_is_refused_before_a_token(
    backend: LocalBackend, document: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        answers(backend, ask(1, document, 0.0))
    assert refused.value.code == "unsupported_json_schema"
    assert said in refused.value.message
