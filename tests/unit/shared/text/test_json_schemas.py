"""`penstock.text.json_schemas`: in 2020-12 a schema says what it says in its own draft."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.text.json_schemas import is_known, modern

DRAFTS: dict[str, Any] = {
    "http://json-schema.org/draft-04/schema#": jsonschema.Draft4Validator,
    "http://json-schema.org/draft-06/schema#": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
}
DRAFT_4, DRAFT_6, DRAFT_7, DRAFT_2019, DRAFT_2020 = DRAFTS
BEFORE_2019 = (DRAFT_4, DRAFT_6, DRAFT_7)

VALUES = st.recursive(
    st.integers(-1, 4) | st.booleans() | st.sampled_from(["", "a", "b"]) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
LIMITS = st.integers(0, 3)


def parts(draft: str) -> st.SearchStrategy[Any]:
    """Schemas of a draft, its own forms among them and keywords of later ones, which it passes over."""
    leaves = [
        st.sampled_from([{"type": "integer"}, {"type": "boolean"}, {"enum": [1, "a"]}, {}]),
        st.just({"$ref": "#/definitions/x", "minimum": 2}),
        st.just({"const": 1}),
        st.fixed_dictionaries({"minContains": LIMITS, "contains": st.just({"type": "integer"})}),
    ]
    if draft == DRAFT_4:
        leaves.append(st.fixed_dictionaries({"minimum": LIMITS, "exclusiveMinimum": st.booleans()}))
        leaves.append(st.fixed_dictionaries({"maximum": LIMITS, "exclusiveMaximum": st.booleans()}))
    else:
        leaves.append(st.fixed_dictionaries({"exclusiveMinimum": LIMITS, "maximum": LIMITS}))
        leaves.append(st.booleans())

    def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        listed = st.lists(inner, min_size=1, max_size=2)
        rest = st.booleans() | inner
        arrays = [st.fixed_dictionaries({"items": inner}, optional={"additionalItems": rest, "prefixItems": listed})]
        if draft != DRAFT_2020:
            arrays.append(st.fixed_dictionaries({"items": listed}, optional={"additionalItems": rest}))
            arrays.append(st.fixed_dictionaries({"additionalItems": rest}))
        dependent = st.dictionaries(st.sampled_from("ab"), st.just(["b"]) | inner, min_size=1, max_size=2)
        return st.one_of(
            *arrays,
            st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from(["a", "items"]), inner, max_size=2)}),
            st.fixed_dictionaries({"dependencies": dependent} if draft in BEFORE_2019 else {"not": inner}),
            st.fixed_dictionaries({"dependentRequired": st.just({"a": ["b"]}), "anyOf": listed}),
            st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
            st.fixed_dictionaries({"allOf": listed}, optional={"type": st.sampled_from(["array", "object"])}),
        )

    return st.recursive(st.one_of(*leaves), nested, max_leaves=5)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), draft=st.sampled_from(list(DRAFTS)))
def test_a_value_is_valid_by_both_or_by_neither(data: st.DataObject, draft: str) -> None:
    schema = {"$schema": draft, "definitions": {"x": {"type": "integer"}}, "allOf": [data.draw(parts(draft))]}
    own = DRAFTS[draft]
    own.check_schema(schema)
    translated = modern(schema)
    jsonschema.Draft202012Validator.check_schema(translated)
    for value in data.draw(st.lists(VALUES, min_size=1, max_size=8)):
        expected = own(schema).is_valid(value)
        assert jsonschema.Draft202012Validator(translated).is_valid(value) == expected, (value, translated)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"items": [{"const": 1}]}, {"prefixItems": [{"const": 1}]}),
        ({"items": [{}], "additionalItems": False}, {"prefixItems": [{}], "items": False}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
        ({"maximum": 1, "exclusiveMaximum": False}, {"maximum": 1}),
        ({"$ref": "#/$defs/x", "minimum": 1}, {"$ref": "#/$defs/x", "minimum": 1}),
        ({"prefixItems": [{}], "additionalItems": False}, {"prefixItems": [{}], "additionalItems": False}),
        ({"properties": {"items": [1]}}, {"properties": {"items": [1]}}),
        ({"enum": [{"items": [1]}], "default": {"minimum": 1, "exclusiveMinimum": True}}, None),
    ],
)
def test_where_no_draft_is_declared_what_has_no_meaning_now_means_what_it_did(
    schema: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    assert modern(schema) == (schema if expected is None else expected)
    assert modern({"allOf": [schema]}) == {"allOf": [modern(schema)]}


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": DRAFT_2020, "items": [{}]},
        {"$schema": DRAFT_6, "minimum": 1, "exclusiveMinimum": True},
        {"$schema": DRAFT_4, "exclusiveMinimum": True},
        {"properties": {"a": {"required": True}}},
    ],
)
def test_a_form_that_the_declared_draft_has_not_stays_and_is_no_schema(schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.SchemaError):
        jsonschema.Draft202012Validator.check_schema(modern(schema))


@pytest.mark.parametrize("draft", DRAFTS)
def test_beside_a_reference_nothing_counts_up_to_draft_7(draft: str) -> None:
    referring = {"$ref": "#/definitions/x", "minimum": 2}
    schema = {"$schema": draft, "definitions": {"x": {"type": "integer"}}, "allOf": [referring]}
    assert jsonschema.Draft202012Validator(modern(schema)).is_valid(1) == (draft in BEFORE_2019)
    assert not jsonschema.Draft202012Validator(modern(schema)).is_valid("x")


def test_anchors_ids_and_recursion_are_said_anew() -> None:
    named = {"$schema": DRAFT_7, "definitions": {"x": {"$id": "#x", "type": "integer"}}, "items": {"$ref": "#x"}}
    assert jsonschema.Draft202012Validator(modern(named)).is_valid([1])
    assert not jsonschema.Draft202012Validator(modern(named)).is_valid(["a"])
    assert modern({"$schema": DRAFT_4, "id": "urn:x:y"}) == {"$id": "urn:x:y"}
    tree = {"$schema": DRAFT_2019, "properties": {"a": {"$recursiveRef": "#"}}, "additionalProperties": False}
    assert modern(tree)["properties"] == {"a": {"$ref": "#"}}


@pytest.mark.parametrize("declared", ["http://json-schema.org/draft-03/schema#", "https://example.org/mine", 7])
def test_a_draft_that_is_not_known_is_not_guessed(declared: object) -> None:
    assert not is_known({"$schema": declared})
    assert is_known({}) and all(is_known({"$schema": draft}) for draft in DRAFTS)
    with pytest.raises(ValueError, match="not known"):
        modern({"$schema": declared})
