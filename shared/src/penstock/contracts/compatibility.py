"""Whether a message's schema may change as it did: what old messages and old readers would meet.

Two rules. A newer release reads every older message: nothing is narrowed and nothing added as required.
In the same version and the next one, which it reads too, a reader of the former release still finds every field
that it knows. Widening (a new enum value, a looser bound) is allowed: readers take it a release before it is written.

It judges JSON Schemas as `export` writes them and refuses any change that it cannot judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$id", "$defs", "deprecated"}
_LOWER_BOUNDS = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER_BOUNDS = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_JUDGED = {
    "type", "enum", "const", "properties", "required", "items", "additionalProperties", "anyOf", "$ref",
    *_LOWER_BOUNDS, *_UPPER_BOUNDS,
}  # fmt: skip
_DEPTH = 64


def breaking_changes(old: Schema, new: Schema, *, read_by_former: bool = True) -> list[str]:
    """A sentence for each change that a message or, where it reads the new one, a reader of the old schema meets."""
    return list(_compare(old, new, "", _Pair(old, new, read_by_former), 0))


class _Pair:
    """The two documents, for their definitions."""

    def __init__(self, old: Schema, new: Schema, read_by_former: bool) -> None:
        self._old = old.get("$defs", {})
        self._new = new.get("$defs", {})
        self.read_by_former = read_by_former
        self.same_definitions = self._old == self._new

    def resolve_old(self, schema: Any) -> dict[str, Any]:
        return _resolve(schema, self._old)

    def resolve_new(self, schema: Any) -> dict[str, Any]:
        return _resolve(schema, self._new)


def _resolve(schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    if schema is True:
        return {}
    if schema is False:
        return {"not": {}}
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    return {key: value for key, value in schema.items() if key not in _ANNOTATIONS}


def _compare(old_raw: Any, new_raw: Any, where: str, pair: _Pair, depth: int) -> Iterator[str]:
    if depth > _DEPTH:
        yield f"{_at(where)}: the schema nests deeper than {_DEPTH} levels and cannot be judged"
        return
    old, new = pair.resolve_old(old_raw), pair.resolve_new(new_raw)
    if old == new and not _refers(old):
        return
    if "anyOf" in old or "anyOf" in new:
        yield from _alternatives(old, new, where, pair, depth)
        return
    yield from _types(old, new, where)
    yield from _bounds(old, new, where)
    yield from _fields(old, new, where, pair, depth)
    if "items" in new and "items" in old:
        yield from _compare(old["items"], new["items"], f"{where}[]", pair, depth + 1)
    elif "items" in new:
        yield f"{_at(where)}: items are restricted now; older messages may hold others"
    yield from _additional(old, new, where, pair, depth)
    for keyword in sorted((old.keys() | new.keys()) - _JUDGED):
        unseen = _refers(old.get(keyword)) and not pair.same_definitions
        if unseen or old.get(keyword) != new.get(keyword):
            yield f"{_at(where)}: {keyword} changed, which cannot be judged; keep it"


def _alternatives(old: dict[str, Any], new: dict[str, Any], where: str, pair: _Pair, depth: int) -> Iterator[str]:
    """Each old alternative must be taken by one of the new ones."""
    for one in _options(old):
        refusals = [list(_compare(one, other, where, pair, depth + 1)) for other in _options(new)]
        if all(refusals):
            yield min(refusals, key=len)[0]


def _options(schema: dict[str, Any]) -> list[Any]:
    options = schema.get("anyOf")
    return list(options) if options is not None else [schema]


def _types(old: dict[str, Any], new: dict[str, Any], where: str) -> Iterator[str]:
    before, after = _names(old.get("type")), _names(new.get("type"))
    if "number" in after:
        after.add("integer")
    lost = sorted(before - after) if before else []
    if after and (lost or not before):
        was = " or ".join(lost) if lost else "any type"
        yield f"{_at(where)}: the type is narrowed, {was} was allowed; older messages would be refused"
    old_values, new_values = _values(old), _values(new)
    if new_values is not None and (old_values is None or not all(v in new_values for v in old_values)):
        gone = [str(v) for v in old_values if v not in new_values] if old_values is not None else ["any value"]
        yield f"{_at(where)}: {', '.join(gone)} is no longer allowed; older messages would be refused"


def _names(value: Any) -> set[str]:
    if value is None:
        return set()
    return {value} if isinstance(value, str) else set(value)


def _values(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _bounds(old: dict[str, Any], new: dict[str, Any], where: str) -> Iterator[str]:
    for keyword in sorted(_LOWER_BOUNDS & new.keys()):
        if keyword not in old or new[keyword] > old[keyword]:
            yield f"{_at(where)}: {keyword} rose to {new[keyword]}; older messages may be below it"
    for keyword in sorted(_UPPER_BOUNDS & new.keys()):
        if keyword not in old or new[keyword] < old[keyword]:
            yield f"{_at(where)}: {keyword} fell to {new[keyword]}; older messages may be above it"


def _fields(old: dict[str, Any], new: dict[str, Any], where: str, pair: _Pair, depth: int) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    required_before, required_after = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(required_after - required_before):
        how = "is required now" if name in before else "is added as required"
        yield f"{_at(_join(where, name))}: {how}; older messages lack it. Give it a default"
    for name in sorted(before.keys() - after.keys()):
        if new.get("additionalProperties") is False:
            yield f"{_at(_join(where, name))}: is removed and unknown fields are refused; older messages have it"
        elif pair.read_by_former:
            yield f"{_at(_join(where, name))}: is removed; readers of the former release expect it. Skip a version"
    if pair.read_by_former:
        for name in sorted((required_before - required_after) & after.keys()):
            yield f"{_at(_join(where, name))}: is optional now; readers of the former release require it"
    for name in sorted(before.keys() & after.keys()):
        yield from _compare(before[name], after[name], _join(where, name), pair, depth + 1)


def _additional(old: dict[str, Any], new: dict[str, Any], where: str, pair: _Pair, depth: int) -> Iterator[str]:
    before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
    if after is True or before is False:
        return
    if after is False:
        yield f"{_at(where)}: unknown fields are refused now; older messages may have some"
    elif before is True:
        yield f"{_at(where)}: the values of its fields are restricted now; older messages may hold others"
    else:
        yield from _compare(before, after, f"{where}.*", pair, depth + 1)


def _refers(schema: Any) -> bool:
    """Whether anything beneath is defined elsewhere: equal references may name changed definitions."""
    if isinstance(schema, Mapping):
        return "$ref" in schema or any(_refers(value) for value in schema.values())
    return isinstance(schema, list) and any(_refers(value) for value in schema)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _at(where: str) -> str:
    return where or "the message"
