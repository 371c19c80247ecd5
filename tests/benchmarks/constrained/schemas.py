"""Twenty JSON Schemas and what is asked with each. What may be long has a bound, so that few answers are cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A schema, the questions asked with it, and how many tokens suffice for any answer that it allows."""

    name: str
    schema: dict[str, Any]
    questions: tuple[str, ...]
    max_tokens: int = 250


def _closed(*, optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object of these properties alone, all of them required but for some."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _text(most: int, least: int = 0) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": most}


_TREE = {
    "$defs": {
        "node": _closed(
            optional=("children",),
            value={"type": "integer", "minimum": 0, "maximum": 9},
            children={"type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 3},
        ),
        "leaf": _closed(value={"type": "integer", "minimum": 0, "maximum": 9}),
    },
    "$ref": "#/$defs/node",
}
_FAMILY = {
    "$defs": {
        "person": _closed(
            name=_text(8, 1), children={"type": "array", "items": {"$ref": "#/$defs/person"}, "maxItems": 2}
        )
    },
    "$ref": "#/$defs/person",
}

CASES: tuple[Case, ...] = (
    Case(
        "flat",
        _closed(name=_text(20, 1), city=_text(20, 1)),
        ("Anna lives in Lyon. Answer as JSON with keys name and city.", "Extract name and city: Omar, from Cairo."),
    ),
    Case(
        "enums",
        _closed(
            status={"enum": ["open", "closed", "in progress"]},
            level={"enum": [1, 2, 3, None]},
            flag={"type": "boolean"},
        ),
        ("The door is closed. Answer as JSON.", "Return the status, level and flag of ticket 7 as JSON."),
    ),
    Case(
        "integer-ranges",
        _closed(
            age={"type": "integer", "minimum": 0, "maximum": 130},
            floor={"type": "integer", "minimum": -12, "maximum": 163},
            odd={"type": "integer", "exclusiveMinimum": 10, "exclusiveMaximum": 20},
        ),
        ("She is 41 and lives on floor 3. Answer as JSON.", "How old is he? Give age, floor and odd."),
    ),
    Case(
        "number-ranges",
        _closed(
            # in steps, each of which has an end in binary: a number without them may go on and on
            price={"type": "number", "minimum": 0.5, "maximum": 99.75, "multipleOf": 0.25},
            share={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.125},
            below={"type": "number", "minimum": -273.5, "maximum": 0, "multipleOf": 0.5},
        ),
        ("The book costs 12.50. Answer as JSON.", "Give price, share and below as numbers."),
    ),
    Case(
        "multiples",
        _closed(
            dozen={"type": "integer", "multipleOf": 12, "minimum": 0, "maximum": 1200},
            cents={"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
        ),
        ("Count the eggs in dozens.", "Answer as JSON with keys dozen and cents."),
    ),
    Case(
        "array-of-strings",
        _closed(colours={"type": "array", "items": _text(12, 1), "minItems": 1, "maxItems": 5}),
        ("Put these into a JSON list called colours: red, green, blue.", "Name some colours as JSON."),
        350,
    ),
    Case(
        "array-of-objects",
        _closed(
            items={
                "type": "array",
                "items": _closed(item=_text(10), count={"type": "integer", "minimum": 1, "maximum": 99}),
                "minItems": 1,
                "maxItems": 3,
            }
        ),
        ("Two apples and five pears. Answer as JSON.", "List what is in the basket as JSON."),
        350,
    ),
    Case(
        "tuple",
        {
            "type": "array",
            "prefixItems": [{"type": "integer", "minimum": 0, "maximum": 999}, _text(10), {"type": "boolean"}],
            "items": False,
            "minItems": 3,
        },
        ("Give a number, a word and whether it is true.", "Answer as a JSON array of three."),
    ),
    Case(
        "nested",
        _closed(
            person=_closed(
                name=_closed(first=_text(12, 1), last=_text(12, 1)),
                address=_closed(city=_text(12), geo=_closed(lat={"type": "integer", "minimum": -90, "maximum": 90})),
            )
        ),
        ("Anna Schmidt lives in Bern. Answer as JSON.", "Describe a person as nested JSON."),
        350,
    ),
    Case(
        "optional",
        _closed(
            optional=("nickname", "email", "notes"),
            id={"type": "integer", "minimum": 1, "maximum": 100000},
            nickname=_text(10),
            email={"type": "string", "format": "email", "maxLength": 30},
            notes={"type": "array", "items": _text(8), "maxItems": 2},
        ),
        ("Customer 17, called Bo. Answer as JSON.", "Return customer 230 as JSON; leave out what is unknown."),
        350,
    ),
    Case(
        "patterns",
        _closed(
            plate={"type": "string", "pattern": "^[A-Z]{1,3}-[0-9]{1,4}$"},
            colour={"type": "string", "pattern": "^#[0-9a-f]{6}$"},
            slug={"type": "string", "pattern": "^[a-z]+(-[a-z]+){0,3}$", "maxLength": 30},
        ),
        ("The red car has the plate B-1234. Answer as JSON.", "Give plate, colour and slug."),
    ),
    Case(
        "dates",
        _closed(
            day={"type": "string", "format": "date"},
            at={"type": "string", "format": "time", "maxLength": 24},
            stamp={"type": "string", "format": "date-time", "maxLength": 35},
        ),
        ("The meeting is on 3 May 2024 at noon. Answer as JSON.", "When was the moon landing? Answer as JSON."),
    ),
    Case(
        "addresses",
        _closed(
            host={"type": "string", "format": "ipv4"},
            host6={"type": "string", "format": "ipv6"},
            id={"type": "string", "format": "uuid"},
        ),
        ("The server has the address 192.0.2.7. Answer as JSON.", "Describe the server as JSON."),
    ),
    Case(
        "reference",
        {
            **_closed(start={"$ref": "#/$defs/point"}, end={"$ref": "#/$defs/point"}),
            "$defs": {
                "point": _closed(x={"$ref": "#/$defs/coordinate"}, y={"$ref": "#/$defs/coordinate"}),
                "coordinate": {"type": "integer", "minimum": -100, "maximum": 100},
            },
        },
        ("A line from 0, 0 to 3, 4. Answer as JSON.", "Return the two ends of the line as JSON."),
    ),
    Case("tree", _TREE, ("A tree with two leaves, 3 and 4. Answer as JSON.", "Draw a small tree as JSON.")),
    Case("recursion", _FAMILY, ("Anna has no children. Answer as JSON.", "Ida and her child Bo as JSON."), 400),
    Case(
        "any-of",
        {
            "anyOf": [
                _closed(kind={"const": "circle"}, radius={"type": "integer", "minimum": 1, "maximum": 50}),
                _closed(kind={"const": "box"}, sides={"type": "array", "items": {"enum": [1, 2, 4]}, "maxItems": 3}),
                {"type": "null"},
            ]
        },
        ("A circle with a radius of 5. Answer as JSON.", "Describe a shape as JSON."),
    ),
    Case(
        "all-of",
        {
            **_closed(a={"type": "integer", "minimum": 0}, b={"type": ["boolean", "null"]}),
            "allOf": [{"properties": {"a": {"maximum": 500}}}, {"properties": {"a": {"multipleOf": 5}}}],
        },
        ("a is 5 and b is true. Answer as JSON.", "Give a and b as JSON."),
    ),
    Case(
        "unicode-keys",
        _closed(
            **{
                "größe": {"type": "integer", "minimum": 1, "maximum": 300},
                "名前": _text(8, 1),
                "état civil": {"enum": ["célibataire", "marié", "неизвестно"]},
                "🙂": {"type": "boolean"},
            }
        ),
        ("Wie groß ist Anna? Antworte als JSON.", "名前は何ですか。JSON で答えてください。"),
        350,
    ),
    Case(
        "dictionary",
        {
            "type": "object",
            "properties": {"total": {"type": "integer", "minimum": 0, "maximum": 1000}},
            "required": ["total"],
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 100},
            "maxProperties": 4,
        },
        ("Votes: Anna 3, Bo 5. Answer as JSON with the total.", "Count the words as JSON with a total."),
        400,
    ),
)
