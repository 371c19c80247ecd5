"""What an answer can be held to and what is checked afterwards agree, for the drafts and forms that requests use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from penstock.contracts.errors import InvalidRequest, StageError
from penstock.contracts.events import OutputFormat
from penstock_inference.constraints import Grammars
from penstock_postprocess import structured

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-lm" / "tokenizer.json"
VOCABULARY = 352
EOS = 2
OLD = [f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 6, 7)]
NEW = ["https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema"]
DRAFTS = [None, *OLD, *NEW]
INTEGER, FLAG = {"type": "integer"}, {"type": "boolean"}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


SCHEMAS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "a list of items": ({"type": "array", "items": [INTEGER, FLAG]}, [[], [1], [1, True], [1, True, "x"], [True]]),
    "no further items": ({"type": "array", "items": [INTEGER], "additionalItems": False}, [[], [1], [1, 2], ["x"]]),
    "further items": ({"type": "array", "items": [INTEGER], "additionalItems": FLAG}, [[1], [1, True], [1, 2]]),
    "further items of a schema": ({"type": "array", "items": INTEGER, "additionalItems": False}, [[1], [1, 2], ["x"]]),
    "enough items": ({"type": "array", "items": [INTEGER, FLAG], "minItems": 2}, [[1], [1, True], [1, True, 1]]),
    "first items": ({"type": "array", "prefixItems": [INTEGER], "items": FLAG}, [[1], [1, True], [1, 1], [True, True]]),
    "above, as a flag": ({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 9}, [0, 1, 9]),
    "below, as a flag": ({"type": "integer", "minimum": 0, "exclusiveMaximum": True, "maximum": 9}, [0, 8, 9]),
    "a flag that is off": ({"type": "integer", "minimum": 0, "exclusiveMinimum": False, "maximum": 9}, [0, 9]),
    "a flag alone": ({"type": "integer", "exclusiveMinimum": True}, [0, 1]),
    "above, as a number": ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9}, [0, 1]),
    "required, as a flag": (closed(a={"type": "integer", "required": True}), [{}, {"a": 1}]),
    "nothing required": ({**closed(a=INTEGER), "required": []}, [{}, {"a": 1}]),
    "beside a reference": (
        {**closed(a={"$ref": "#/definitions/x", "minimum": 5}), "definitions": {"x": INTEGER}},
        [{"a": 1}, {"a": 7}, {"a": "x"}],
    ),
    "within a definition": (
        {**closed(a={"$ref": "#/definitions/x"}), "definitions": {"x": {"type": "array", "items": [INTEGER]}}},
        [{"a": [1]}, {"a": ["x"]}],
    ),
    "a constant": ({"type": "integer", "const": 1}, [1, 2]),
    "any items": ({"type": "array", "items": True, "maxItems": 1}, [[1], ["a"], [1, 1]]),
    "dependencies": ({**closed(a=INTEGER, b=INTEGER), "dependencies": {"a": ["b"]}}, [{"a": 1}, {"a": 1, "b": 2}]),
    "the root again": (closed(a={"$recursiveRef": "#"}), [{"a": {}}, {"a": 1}]),
    "no type": ({"type": "any"}, [1]),
}


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TINY.read_text(), VOCABULARY, [EOS])


def held(grammars: Grammars, schema: dict[str, Any], values: list[Any]) -> list[bool] | str:
    """Which of the values an answer held to the schema can be, or the code with which the schema is refused."""
    tokenizer = Tokenizer.from_file(str(TINY))
    found = []
    for value in values:
        try:
            constraint = grammars.of(OutputFormat(type="json_schema", json_schema=json.dumps(schema)))
        except InvalidRequest as error:
            return error.code
        assert constraint is not None
        ids = [*tokenizer.encode(json.dumps(value, separators=(",", ":")), add_special_tokens=False).ids, EOS]
        for token in ids:
            if constraint.complete or not constraint.allows(token):
                break
            constraint.accept(token)
        found.append(constraint.complete)
    return found


def checked(schema: dict[str, Any], values: list[Any]) -> list[bool] | str:
    """Which of the values pass the check, or the code with which the schema is refused."""
    found = []
    for value in values:
        try:
            structured.check(value, schema)
        except InvalidRequest as error:
            return error.code
        except StageError:
            found.append(False)
        else:
            found.append(True)
    return found


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("draft", DRAFTS)
def test_what_an_answer_may_be_is_what_passes(grammars: Grammars, draft: str | None, name: str) -> None:
    schema, values = SCHEMAS[name]
    if draft is not None:
        schema = {"$schema": draft, **schema}
    may, passes = held(grammars, schema, values), checked(schema, values)
    if may == "unsupported_json_schema":  # told before anything is generated
        assert name in ("dependencies", "the root again", "no type")
    else:
        assert may == passes


@pytest.mark.parametrize("draft", [None, *OLD, NEW[0]])
def test_a_list_of_items_is_followed_in_every_draft_that_has_it(grammars: Grammars, draft: str | None) -> None:
    schema, values = SCHEMAS["no further items"]
    declared = {} if draft is None else {"$schema": draft}
    assert held(grammars, {**declared, **schema}, values) == [True, True, False, False]


def test_a_draft_that_is_not_known_is_refused_before_anything_is_generated(grammars: Grammars) -> None:
    schema = {"$schema": "http://json-schema.org/draft-03/schema#", "type": "integer"}
    assert held(grammars, schema, [1]) == "unsupported_json_schema"
    with pytest.raises(InvalidRequest, match=r"\$schema names no draft"):
        grammars.of(OutputFormat(type="json_schema", json_schema=json.dumps(schema)))
