"""JSON Schemas of former drafts, said in draft 2020-12.

What holds an answer to a schema and what checks it afterwards know former drafts to different degrees. Both are given
what `modern` makes of a schema. Whether that is a schema at all is theirs to check, by the rules of 2020-12: a keyword
in a form that its draft has not is left as it is.
"""

from __future__ import annotations

from typing import Any, Final

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_UNDECLARED = 0
"""Where no draft is declared, what 2020-12 has no meaning for means what it did."""
_DRAFTS: Final = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    DIALECT: 2020,
}
_SINCE: Final = {
    **dict.fromkeys(("const", "contains", "propertyNames"), 6),
    **dict.fromkeys(("if", "then", "else"), 7),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"), 2019),
    **dict.fromkeys(("minContains", "maxContains", "$anchor", "$recursiveRef"), 2019),
    **dict.fromkeys(("prefixItems", "$dynamicRef", "$dynamicAnchor"), 2020),
}
"""Keywords by the draft that brought them; a former one passes over them."""
_ONE: Final = {
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip
_MANY: Final = {"allOf", "anyOf", "items", "oneOf", "prefixItems"}
_NAMED: Final = {
    "$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties",
}  # fmt: skip
_BESIDE_A_REFERENCE: Final = {"$ref", "$defs", "definitions"}
"""What counts beside `$ref` up to draft 7: nothing but what it may refer to."""


def is_known(schema: dict[str, Any]) -> bool:
    """Whether the draft that a schema declares is one that `modern` reads; one that declares none is."""
    return _draft(schema) is not None


def modern(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in draft 2020-12, without `$schema`; raises ValueError where it declares a draft that is not known."""
    draft = _draft(schema)
    if draft is None:
        raise ValueError("the schema declares a draft that is not known")
    translated = _translated(schema, draft)
    assert isinstance(translated, dict)
    return translated


def _draft(schema: dict[str, Any]) -> int | None:
    declared = schema.get("$schema")
    if declared is None:
        return _UNDECLARED
    return _DRAFTS.get(declared.removesuffix("#")) if isinstance(declared, str) else None


def _translated(schema: Any, draft: int) -> Any:
    if not isinstance(schema, dict):
        return schema
    referring = draft in (4, 6, 7) and isinstance(schema.get("$ref"), str)
    found: dict[str, Any] = {}
    for keyword, value in schema.items():
        passed_over = draft != _UNDECLARED and draft < _SINCE.get(keyword, 0)
        if keyword == "$schema" or passed_over or (referring and keyword not in _BESIDE_A_REFERENCE):
            continue
        found[keyword] = _within(keyword, value, draft)
    if draft in (_UNDECLARED, 4):
        _limits(found)
    if draft != 2020:
        _items(found, draft)
    if draft in (4, 6, 7):
        _dependencies(found)
        _identify(found, "id" if draft == 4 else "$id")
    if draft == 2019 and found.get("$recursiveRef") == "#" and "$ref" not in found:
        found["$ref"] = found.pop("$recursiveRef")  # there is one document: its root is what is meant
        found.pop("$recursiveAnchor", None)
    return found


def _within(keyword: str, value: Any, draft: int) -> Any:
    """What a keyword says, with the schemas in it translated."""
    if keyword in _NAMED and isinstance(value, dict):
        return {name: _translated(part, draft) for name, part in value.items()}
    if keyword in _MANY and isinstance(value, list):
        return [_translated(part, draft) for part in value]
    return _translated(value, draft) if keyword in _ONE else value


def _limits(schema: dict[str, Any]) -> None:
    """`exclusiveMinimum` beside `minimum`, and the same of the maximum, up to draft 4."""
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool) and limit in schema and schema.pop(exclusive):
            schema[exclusive] = schema.pop(limit)


def _items(schema: dict[str, Any], draft: int) -> None:
    """A list of `items`, and what follows them, up to draft 2019-09."""
    listed = isinstance(schema.get("items"), list) and "prefixItems" not in schema
    if listed:
        schema["prefixItems"] = schema.pop("items")
    if "additionalItems" in schema and (listed or draft != _UNDECLARED):
        rest = schema.pop("additionalItems")
        if listed:
            schema["items"] = rest


def _dependencies(schema: dict[str, Any]) -> None:
    """`dependencies` on names and on schemas, up to draft 7."""
    both = schema.get("dependencies")
    if not isinstance(both, dict):
        return
    del schema["dependencies"]
    names = {name: part for name, part in both.items() if isinstance(part, list)}
    if names:
        schema["dependentRequired"] = names
    if len(names) < len(both):
        schema["dependentSchemas"] = {name: part for name, part in both.items() if name not in names}


def _identify(schema: dict[str, Any], keyword: str) -> None:
    """`id` of draft 4, and anchors as `#NAME` in an id, up to draft 7."""
    name = schema.get(keyword)
    if not isinstance(name, str):
        return
    del schema[keyword]
    if name.startswith("#"):
        schema["$anchor"] = name[1:]
    else:
        schema["$id"] = name
