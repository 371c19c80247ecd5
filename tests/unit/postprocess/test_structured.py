"""JSON where JSON was asked for."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from penstock.contracts.errors import InvalidRequest, StageError
from penstock_postprocess.structured import check, dump, load_schema, parse, require_object


@pytest.mark.parametrize(
    ("text", "value", "repair"),
    [
        ('{"a": 1}', {"a": 1}, None),
        (" [1, 2]\n", [1, 2], None),
        ('```json\n{"a": 1}\n```', {"a": 1}, "json_fence_removed"),
        ('{"a": 1,}', {"a": 1}, "json_repaired"),
        ("{'a': 'b'}", {"a": "b"}, "json_repaired"),
        ('{"a": [1, 2', {"a": [1, 2]}, "json_repaired"),
        ('{"a": "cut of', {"a": "cut of"}, "json_repaired"),
        ('Here you are: {"a": 1}', {"a": 1}, "json_repaired"),
        ('{"a": "<PERSON_1>"', {"a": "<PERSON_1>"}, "json_repaired"),
    ],
)
def test_finds_and_repairs(text: str, value: Any, repair: str | None) -> None:
    assert parse(text) == (value, repair)


@pytest.mark.parametrize("text", ["", "no json", "42", '"text"', "null", "   "])
def test_refuses_what_is_no_json(text: str) -> None:
    with pytest.raises(StageError) as refused:
        parse(text)
    assert refused.value.code == "invalid_json_output"
    assert not text.strip() or text.strip() not in refused.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [("42", 42), ('"text"', "text"), (" null\n", None), ("false", False), ('{"a": 1}', {"a": 1}), ("[]", [])],
)
def test_a_schema_may_ask_for_a_bare_value(text: str, value: Any) -> None:
    assert parse(text, scalars=True) == (value, None)


@pytest.mark.parametrize("text", ["no json", "NaN", "", '"cut of'])
def test_a_bare_value_is_not_made_up(text: str) -> None:
    with pytest.raises(StageError):
        parse(text, scalars=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": NaN, "b": [-Infinity]}', {"a": None, "b": [None]}),
        ('{"a": 1e999}', {"a": None}),
        ('{"a": "x\\ud800y", "\\udc00": "\\ud83d\\ude00"}', {"a": "x\ufffdy", "\ufffd": "\U0001f600"}),
    ],
)
def test_the_value_can_always_be_written_as_json_in_utf8(text: str, value: Any) -> None:
    found, _ = parse(text)
    assert found == value
    assert json.loads(dump(found).encode(), parse_constant=pytest.fail) == value


def test_deep_nesting_is_an_error_of_its_kind() -> None:
    with pytest.raises((StageError, RecursionError)):
        dump(parse("[" * 100_000)[0])


def test_an_object_is_an_object() -> None:
    assert require_object({"a": 1}) == {"a": 1}
    assert require_object([{"a": 1}]) == {"a": 1}
    with pytest.raises(StageError, match="array of 2 items") as refused:
        require_object([1, 2])
    assert refused.value.code == "invalid_json_output"


def test_the_schema_comes_bare_or_in_its_wrapping() -> None:
    schema = {"type": "object"}
    assert load_schema(json.dumps(schema)) == schema
    assert load_schema(json.dumps({"name": "answer", "strict": True, "schema": schema})) == schema
    with pytest.raises(InvalidRequest, match="not JSON"):
        load_schema(None)


def test_follows_or_breaks_a_schema_and_the_error_quotes_no_value() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    check({"age": 3}, schema)
    with pytest.raises(StageError) as refused:
        check({"age": "canary"}, schema)
    assert (refused.value.code, refused.value.limit) == ("invalid_json_output", "type")
    assert "canary" not in refused.value.message
    with pytest.raises(StageError, match="required"):
        check({}, schema)


def test_patterns_are_checked() -> None:
    schema = {"properties": {"id": {"pattern": "^[a-z]+$"}}}
    check({"id": "abc"}, schema)
    check({"id": 5}, schema)
    with pytest.raises(StageError, match="pattern"):
        check({"id": "ABC"}, schema)


def test_patterns_of_names_are_checked() -> None:
    schema = {
        "properties": {"id": {"type": "string"}},
        "patternProperties": {"^n": {"type": "integer"}, "x$": {"minimum": 3}},
        "additionalProperties": False,
    }
    check({"id": "abc", "n": 1, "nx": 3, "x": "any", "max": 4}, schema)
    check([1], schema)
    for value, keyword in (({"n": "one"}, "type"), ({"nx": 2}, "minimum"), ({"other": 1}, "additionalProperties")):
        with pytest.raises(StageError) as refused:
            check(value, schema)
        assert refused.value.limit == keyword


def test_what_is_additional_may_have_a_schema_of_its_own() -> None:
    schema = {"patternProperties": {"^n": {}}, "additionalProperties": {"type": "null"}}
    check({"n": 1, "other": None}, schema)
    with pytest.raises(StageError, match="type"):
        check({"n": 1, "other": 1}, schema)
    check({"other": 1}, {"additionalProperties": True})


def test_a_pattern_may_name_a_property_of_letters() -> None:
    schema = {"properties": {"id": {"pattern": r"^\p{Lu}+$"}}}
    check({"id": "ÀÉ"}, schema)
    with pytest.raises(StageError, match="pattern"):
        check({"id": "àé"}, schema)


def test_without_patterns_of_names_what_is_unevaluated_is_checked() -> None:
    schema = {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}
    check({"a": 1}, schema)
    with pytest.raises(StageError, match="unevaluatedProperties"):
        check({"b": 1}, schema)


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"id": "a" * 64 + "!"}, {"properties": {"id": {"pattern": "^(a|a)+$"}}}),
        ({"a" * 64 + "!": 1}, {"patternProperties": {"^(a|a)+$": {}}}),
        ({"a" * 64 + "!": 1}, {"additionalProperties": False, "patternProperties": {"^(a|a)+$": {}}}),
    ],
)
def test_a_pattern_that_backtracks_without_end_is_cut_short(value: Any, schema: dict[str, Any]) -> None:
    started = time.thread_time()
    with pytest.raises(InvalidRequest, match="takes too long"):
        check(value, schema)
    assert time.thread_time() - started < 5


@pytest.mark.parametrize(
    "schema",
    [
        [],
        True,
        {"type": "unknown"},
        {"properties": {"id": {"pattern": "("}}},
        {"patternProperties": {"(": {}}},
        {"patternProperties": {"^a": {}}, "anyOf": [{"unevaluatedProperties": False}]},
        {"$ref": "#/$defs/missing"},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_that_cannot_be_used_is_the_requests_fault(schema: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check({"id": "a"}, schema)
    assert (refused.value.code, refused.value.field) == ("invalid_json_schema", "response_format.json_schema")


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up a host"))
    with pytest.raises(InvalidRequest, match="refers to something outside"):
        check({}, {"$ref": "http://schemas.invalid/person.json"})
