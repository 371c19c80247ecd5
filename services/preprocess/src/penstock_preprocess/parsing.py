"""Bytes from `llm.requests` to a `CompletionRequest`, or the typed error that says what is wrong.

Cheap checks come first: a body above the limit is never parsed, one nested too deep never reaches the
parser. Errors name field, limit and shape; a field's name is shown only where it is one of ours or looks
like an identifier. It decides nothing about ids, models or token counts: that is the stage.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from penstock.contracts.base import shape
from penstock.contracts.errors import InvalidRequest, LimitExceeded
from penstock.contracts.request import IDENTIFIER_PATTERN, CompletionRequest

MAX_NESTING: Final = 32
MAX_NUMBER_CHARACTERS: Final = 64

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)
_FREE_FORM = ("metadata", "json_schema")
_BOM = b"\xef\xbb\xbf"

_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "tuple_type": "an array",
}


class _BadNumber(ValueError):
    """A number too long or too large to be read."""


class _DuplicateKey(ValueError):
    """An object that names a field twice: readers disagree on which one counts."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


@dataclass(frozen=True, slots=True)
class BodyIds:
    """What a body says of the request's identity; kept even where the rest of the body is refused."""

    request_id: str | None = None
    conversation_id: str | None = None
    tenant: str | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> BodyIds:
        """The well-formed ids of a parsed body."""
        found = {name: document.get(name) for name in ("request_id", "conversation_id", "tenant")}
        return cls(**{k: v for k, v in found.items() if isinstance(v, str) and _IDENTIFIER.fullmatch(v)})


def read_object(value: bytes | None, max_bytes: int) -> dict[str, Any]:
    """The JSON object in a record value; raises InvalidRequest or LimitExceeded."""
    if value is None:
        raise InvalidRequest(
            "body: the record has no value (a tombstone); publish a JSON object", code="empty_record", field="body"
        )
    if len(value) > max_bytes:
        raise LimitExceeded(
            f"body: {len(value)} bytes, more than {max_bytes}; send less or raise PENSTOCK_PREPROCESS_MAX_BODY_BYTES",
            field="body",
            limit=max_bytes,
        )
    text = _decode(value.removeprefix(_BOM))
    _check_nesting(value)
    document = _parse(text)
    if not isinstance(document, dict):
        raise InvalidRequest(
            f"body: expected a JSON object, got {shape(document)}", code="invalid_field", field="body", limit="object"
        )
    _check_strings(document)
    return document


def validate(document: Mapping[str, Any]) -> CompletionRequest:
    """The request in a JSON object; raises InvalidRequest that names the first field at fault."""
    try:
        return CompletionRequest.model_validate(document)
    except ValidationError as error:
        # the value is looked up for its shape alone
        refusal = _invalid(dict(error.errors(include_url=False)[0]), document)
    # not within `except`: as another error's context pydantic's would never be freed, nor what its frames hold,
    # since the garbage collector does not see what it refers to
    raise refusal


def _decode(value: bytes) -> str:
    if not value.strip():
        raise InvalidRequest(
            f"body: {len(value)} bytes without JSON; publish a JSON object", code="invalid_json", field="body"
        )
    if b"\0" in value:
        _refuse_nul("body")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"body: not UTF-8 from byte {error.start} of {len(value)}", code="invalid_utf8", field="body", limit="UTF-8"
        ) from None


def _check_nesting(value: bytes) -> None:
    """Refuse deep nesting before the parser recurses into it; brackets inside strings do not count."""
    if value.count(b"[") + value.count(b"{") <= MAX_NESTING:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(value):
        first = match.group()[0]
        if first in b"[{":
            depth += 1
            if depth > MAX_NESTING:
                raise LimitExceeded(
                    f"body: nested deeper than {MAX_NESTING} levels at byte {match.start()}",
                    code="nesting_too_deep",
                    field="body",
                    limit=MAX_NESTING,
                )
        elif first in b"]}":
            depth -= 1


def _parse(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"body: not JSON at line {error.lineno}, column {error.colno}", code="invalid_json", field="body"
        ) from None
    except _DuplicateKey as error:
        name = error.name if _FIELD_NAME.fullmatch(error.name) else None
        raise InvalidRequest(
            f"body: an object names the field {name or f'of {len(error.name)} characters'} twice; give it once",
            code="duplicate_field",
            field=name or "body",
        ) from None
    except _BadNumber:
        raise InvalidRequest(
            f"body: a number that is not finite or has more than {MAX_NUMBER_CHARACTERS} characters",
            code="invalid_field",
            field="body",
            limit=MAX_NUMBER_CHARACTERS,
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateKey(name)
            seen.add(name)
    return document


def _no_constant(_: str) -> NoReturn:
    raise _BadNumber


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise _BadNumber
    return int(text)


def _float(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARACTERS or not math.isfinite(value := float(text)):
        raise _BadNumber
    return value


def _check_strings(document: Mapping[str, Any]) -> None:
    """Refuse lone surrogates, which no UTF-8 text can hold, and NUL, which no prompt needs."""
    for path, text in _strings(document, ()):
        if "\0" in text:
            _refuse_nul(_path(path))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = _path(path)
            raise InvalidRequest(
                f"{where}: half of a surrogate pair at character {error.start} of {len(text)}",
                code="invalid_unicode",
                field=where,
                limit="Unicode scalar values",
            ) from None


def _strings(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    match value:
        case str():
            yield path, value
        case dict():
            for name, item in value.items():
                yield path, name
                yield from _strings(item, (*path, name))
        case list():
            for index, item in enumerate(value):
                yield from _strings(item, (*path, index))


def _refuse_nul(field: str) -> NoReturn:
    raise InvalidRequest(
        f"{field}: holds a NUL character; leave it out", code="invalid_characters", field=field, limit="no NUL"
    )


def _invalid(detail: dict[str, Any], document: Mapping[str, Any]) -> InvalidRequest:
    """The first error of pydantic in our words; its own may quote the value."""
    location, value = _locate(detail, document)
    field, found = _path(location), shape(value)
    limits: dict[str, Any] = detail.get("ctx", {})
    kind: str = detail["type"]
    if kind == "missing":
        return InvalidRequest(f"{field}: required field is missing", code="missing_field", field=field)
    if kind == "extra_forbidden":
        return InvalidRequest(f"{field}: not a field of the request; leave it out", code="unknown_field", field=field)
    if kind == "value_error":
        if document.get("messages") is None and document.get("prompt") is None:
            return InvalidRequest(
                "messages: required field is missing; give either messages or prompt",
                code="missing_field",
                field="messages",
            )
        both = document.get("messages") is not None and document.get("prompt") is not None
        limits_twice = document.get("max_tokens") is not None and document.get("max_completion_tokens") is not None
        if document.get("top_logprobs") is None and not both and not limits_twice:
            return InvalidRequest(
                "n: more than one, but one answer alone can be streamed", code="invalid_field", field="n"
            )
        if not both and not limits_twice:
            return InvalidRequest(
                "top_logprobs: needs logprobs, which is not true", code="invalid_field", field="top_logprobs"
            )
        pair = ("messages", "prompt") if both else ("max_tokens", "max_completion_tokens")
        return InvalidRequest(
            f"{pair[0]}: give either {pair[0]} or {pair[1]}, and not both", code="invalid_field", field=pair[0]
        )
    expected, limit = _expectation(kind, limits)
    return InvalidRequest(
        f"{field}: expected {expected}, got {found}", code="invalid_field", field=field, limit=limit or expected
    )


def _expectation(kind: str, limits: Mapping[str, Any]) -> tuple[str, int | float | str | None]:
    bounds = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for name, words in bounds.items():
        if name in limits:
            return f"{words} {limits[name]}", limits[name]
    if kind in ("string_too_long", "too_long"):
        return f"at most {limits['max_length']} {_unit(kind)}", int(limits["max_length"])
    if kind in ("string_too_short", "too_short"):
        return f"at least {limits['min_length']} {_unit(kind)}", int(limits["min_length"])
    if kind == "literal_error":
        return str(limits["expected"]), None
    if kind == "string_pattern_mismatch":
        return "1 to 128 letters, digits and . _ : -", None
    return _EXPECTED.get(kind, "another form"), None


def _unit(kind: str) -> str:
    return "characters" if kind.startswith("string") else "items"


def _locate(detail: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[tuple[str | int, ...], Any]:
    """Where in the document an error is and what stands there; the names of a union's branches left out."""
    value: Any = document
    kept: list[str | int] = []
    last = len(detail["loc"]) - 1
    for position, part in enumerate(detail["loc"]):
        absent = detail["type"] == "missing" and position == last
        if isinstance(value, dict) and (part in value or absent):
            value = value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        kept.append(part)
    return tuple(kept), value


def _path(location: Sequence[str | int]) -> str:
    """`messages[3].content`; a name that is the user's own or no identifier becomes `*`."""
    text = ""
    own_words = False
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        shown = part if _FIELD_NAME.fullmatch(part) and not own_words else "*"
        text += f".{shown}" if text else shown
        own_words = own_words or part in _FREE_FORM
    return text or "body"
