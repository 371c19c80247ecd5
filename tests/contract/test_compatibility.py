"""What the compatibility check refuses, an example of each, and what it lets through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from penstock.contracts.compatibility import breaking_changes

Change = Callable[[dict[str, Any]], Any]

OLD: dict[str, Any] = {
    "type": "object",
    "required": ["id", "status", "place"],
    "properties": {
        "id": {"type": "string", "maxLength": 10, "pattern": "^[a-z]+$"},
        "status": {"enum": ["completed", "failed"], "type": "string"},
        "score": {"type": "number", "minimum": 0, "default": 0},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "place": {"$ref": "#/$defs/Place"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "$defs": {
        "Place": {"type": "object", "required": ["topic"], "properties": {"topic": {"type": "string"}}},
    },
}


def changed(change: Change) -> dict[str, Any]:
    new = copy.deepcopy(OLD)
    change(new)
    return new


def add(new: dict[str, Any], name: str, *, required: bool) -> None:
    new["properties"][name] = {"type": "string"}
    if required:
        new["required"].append(name)


def rename(new: dict[str, Any]) -> None:
    new["$defs"] = {"Where": new["$defs"]["Place"]}
    new["properties"]["place"]["$ref"] = "#/$defs/Where"


REFUSED: list[tuple[str, Change, str]] = [
    ("added required", lambda n: add(n, "tenant", required=True), "tenant: is added as required"),
    ("made required", lambda n: n["required"].append("score"), "score: is required now"),
    ("removed", lambda n: n["properties"].pop("note"), "note: is removed"),
    ("made optional", lambda n: n["required"].remove("status"), "status: is optional now"),
    ("type narrowed", lambda n: n["properties"]["score"].update(type="integer"), "score: the type is narrowed"),
    ("type changed", lambda n: n["properties"]["id"].update(type="integer"), "id: the type is narrowed"),
    ("null refused", lambda n: n["properties"].update(note={"type": "string"}), "note: the type is narrowed"),
    ("enum value removed", lambda n: n["properties"]["status"]["enum"].pop(), "status: failed is no longer allowed"),
    ("made constant", lambda n: n["properties"]["id"].update(const="a"), "id: any value is no longer allowed"),
    ("bound lowered", lambda n: n["properties"]["id"].update(maxLength=9), "id: maxLength fell to 9"),
    ("bound raised", lambda n: n["properties"]["score"].update(minimum=1), "score: minimum rose to 1"),
    ("bound added", lambda n: n["properties"]["tags"].update(maxItems=3), "tags: maxItems fell to 3"),
    ("pattern changed", lambda n: n["properties"]["id"].update(pattern="^x"), "id: pattern changed"),
    ("keyword added", lambda n: n.update({"not": {}}), "the message: not changed"),
    ("closed", lambda n: n.update(additionalProperties=False), "unknown fields are refused now"),
    ("in a definition", lambda n: n["$defs"]["Place"]["required"].append("offset"), "place.offset: is added"),
    ("in items", lambda n: n["properties"]["tags"]["items"].update(maxLength=2), "tags[]: maxLength fell"),
    ("in values", lambda n: n["properties"]["counts"]["additionalProperties"].update(minimum=1), "counts.*: minimum"),
]

ALLOWED: list[tuple[str, Change]] = [
    ("nothing", lambda n: None),
    ("optional field added", lambda n: add(n, "tenant", required=False)),
    ("enum value added", lambda n: n["properties"]["status"]["enum"].append("blocked")),
    ("type widened", lambda n: n["properties"]["counts"]["additionalProperties"].update(type="number")),
    ("null allowed", lambda n: n["properties"].update(id={"anyOf": [n["properties"]["id"], {"type": "null"}]})),
    ("bound loosened", lambda n: n["properties"]["id"].update(maxLength=20)),
    ("words", lambda n: n["properties"]["id"].update(description="another", title="Id")),
    ("definition renamed", rename),
]


@pytest.mark.parametrize(("change", "sentence"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_is_refused_with_a_sentence(change: Change, sentence: str) -> None:
    sentences = breaking_changes(OLD, changed(change))
    assert len(sentences) == 1
    assert sentence in sentences[0]


@pytest.mark.parametrize("change", [a[1] for a in ALLOWED], ids=[a[0] for a in ALLOWED])
def test_is_allowed(change: Change) -> None:
    assert breaking_changes(OLD, changed(change)) == []


def test_a_version_that_the_former_release_does_not_read_may_remove_a_field_but_must_still_read_the_old_one() -> None:
    removed = changed(lambda n: (n["properties"].pop("note"), n["required"].remove("status")))
    assert breaking_changes(OLD, removed, read_by_former=False) == []
    required = changed(lambda n: add(n, "tenant", required=True))
    assert len(breaking_changes(OLD, required, read_by_former=False)) == 1


def test_a_removed_field_is_refused_in_any_version_where_unknown_fields_are() -> None:
    closed = OLD | {"additionalProperties": False}
    new = copy.deepcopy(closed)
    new["properties"].pop("note")
    assert "unknown fields are refused" in breaking_changes(closed, new, read_by_former=False)[0]


def test_a_change_beneath_what_cannot_be_judged_is_refused() -> None:
    old = copy.deepcopy(OLD)
    old["properties"]["place"] = {"oneOf": [{"$ref": "#/$defs/Place"}, {"type": "string"}]}
    new = copy.deepcopy(old)
    assert breaking_changes(old, new) == []
    new["$defs"]["Place"]["required"] = []
    assert "place: oneOf changed" in breaking_changes(old, new)[0]
