"""JSON where JSON was asked for: finding it, repairing it, checking it against a schema.

Nothing is fetched: a schema may refer to its own parts only. A schema comes from upstream, so its
regular expressions run with a time limit. Restoring placeholders is `restoring`'s work.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import json_repair
import jsonschema
import regex
from jsonschema import validators
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from penstock.contracts.errors import InvalidRequest, StageError
from penstock.contracts.request import schema_of
from penstock.text import json_schemas

INVALID_OUTPUT = "invalid_json_output"
INVALID_SCHEMA = "invalid_json_schema"
PATTERN_TIMEOUT_S = 0.05

_NOTHING = object()

_DIALECT = jsonschema.FormatChecker(formats=())
"""What of a schema's own form is checked beside its rules: that a pattern is one here too, `\\p{L}` among others."""

_FENCED = re.compile(r"\A\s*```[A-Za-z]*\s*\n(?P<body>.*?)\n?\s*```\s*\Z", re.DOTALL)


def parse(text: str, *, scalars: bool = False) -> tuple[Any, str | None]:
    """The answer's JSON value and what had to be done to it: None, `json_fence_removed` or `json_repaired`.

    With `scalars` a bare string, number, true, false or null is a value too, where it needs no repair.
    Raises StageError where no value can be made of it.
    """

    def wanted(value: Any) -> bool:
        return value is not _NOTHING and (scalars or isinstance(value, dict | list))

    value, repair = _strict(text), None
    fenced = _FENCED.match(text)
    if not wanted(value) and fenced is not None:
        value, repair = _strict(fenced["body"]), "json_fence_removed"
    if not wanted(value):
        value, repair = _repaired(text), "json_repaired"
    return _portable(value), repair


def require_object(value: Any) -> dict[str, Any]:
    """The value, which `json_object` wants to be an object; a list that holds one object alone counts as it."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return value[0]
    if not isinstance(value, dict):
        raise StageError(
            f"the model's answer is a JSON array of {len(value)} items, not an object",
            code=INVALID_OUTPUT,
            field="response_format",
            limit="json_object",
        )
    return value


def load_schema(text: str | None) -> Any:
    """The schema of `json_schema`, out of its JSON text; raises InvalidRequest where it is none."""
    try:
        return schema_of(text)
    except ValueError:
        raise _bad_schema("it is not JSON") from None


def check(value: Any, schema: Any) -> None:
    """Raises StageError where the value breaks the schema, InvalidRequest where the schema itself is broken."""
    if not isinstance(schema, dict):
        raise _bad_schema("it is not an object")
    # a class, whose `check_schema` and `descend` the library's stubs leave out
    base: Any = jsonschema.Draft202012Validator
    try:
        if json_schemas.is_known(schema):
            schema = json_schemas.modern(schema)
        else:
            base = validators.validator_for(schema, default=base)
        base.check_schema(schema, format_checker=_DIALECT)
        if all(f'"{keyword}":' in dump(schema) for keyword in ("patternProperties", "unevaluatedProperties")):
            # the library matches the patterns of a schema's parts itself, without a limit
            raise _bad_schema("patternProperties beside unevaluatedProperties is not supported")
        limited = validators.extend(base, _LIMITED)  # type: ignore[no-untyped-call]  # the library's stubs leave it out
        validator = limited(schema, registry=Registry())
        broken = next(iter(validator.iter_errors(value)), None)
    except (SchemaError, Unresolvable):
        raise _bad_schema("it breaks its own rules or refers to something outside of it") from None
    except RecursionError:
        raise _bad_schema("it is nested or refers to itself too deeply") from None
    except TimeoutError:
        raise _bad_schema("one of its patterns takes too long") from None
    except regex.error:
        raise _bad_schema("one of its patterns is no regular expression") from None
    if broken is not None:
        raise StageError(
            f"the model's answer is JSON but breaks the keyword {broken.validator} of the schema, "
            f"{len(broken.absolute_path)} levels down",
            code=INVALID_OUTPUT,
            field="response_format.json_schema",
            limit=str(broken.validator),
        )


def too_deep() -> StageError:
    """The error of an answer nested more deeply than can be worked on."""
    return StageError(
        "the model's answer is JSON that is nested too deeply",
        code=INVALID_OUTPUT,
        field="response_format",
        limit="nesting",
    )


def dump(value: Any) -> str:
    """Compact JSON text, letters of all languages as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _strict(text: str) -> Any:
    """The value that the text is; _NOTHING where it is none, by RFC 8259 (no NaN, no Infinity)."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _NOTHING


def _repaired(text: str) -> Any:
    try:
        repaired = json_repair.loads(text)
    except RecursionError:
        raise too_deep() from None
    if not isinstance(repaired, dict | list) or not repaired:
        raise StageError(
            f"the model's answer of {len(text)} characters is not JSON and could not be repaired; ask again, allow "
            "more tokens, or name the fields in the prompt",
            code=INVALID_OUTPUT,
            field="response_format",
            limit="json",
        )
    return repaired


def _portable(value: Any) -> Any:
    """The value without what JSON text in UTF-8 cannot hold: infinities become null, lone surrogates U+FFFD."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_portable(item) for item in value]
        case dict():
            return {_portable(key): _portable(item) for key, item in value.items()}
        case _:
            return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


@_DIALECT.checks("regex", raises=regex.error)
def _is_pattern(text: object) -> bool:
    return not isinstance(text, str) or bool(regex.compile(text))


def _matches(pattern: str, text: str) -> bool:
    """Raises TimeoutError for an expression that backtracks without end."""
    return regex.search(pattern, text, timeout=PATTERN_TIMEOUT_S) is not None


def _pattern(validator: Validator, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError("pattern")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, of_it in patterns.items():
            for name in instance:
                if _matches(pattern, name):
                    yield from validator.descend(instance[name], of_it, path=name, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    others = [name for name in instance if name not in named and not any(_matches(one, name) for one in patterns)]
    if isinstance(rest, dict):
        for name in others:
            yield from validator.descend(instance[name], rest, path=name)
    elif others and not rest:
        yield ValidationError("additionalProperties")


_LIMITED = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""The keywords that match regular expressions: with the time limit."""


def _bad_schema(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"response_format.json_schema cannot be used: {reason}",
        code=INVALID_SCHEMA,
        field="response_format.json_schema",
    )
