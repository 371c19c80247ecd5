"""JSON where JSON is asked for: which tokens may come next, by llguidance.

A grammar is made once for each schema and copied for each request. What a schema says may hold a person's words, and
so may the library's messages about it: errors name the keywords of JSON Schema alone.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError
from llguidance import LLMatcher, LLTokenizer

from penstock.contracts.errors import ConfigurationError, InvalidRequest, StageError
from penstock.contracts.events import OutputFormat
from penstock.contracts.request import schema_of
from penstock.text import json_schemas
from penstock.text.placeholders import PLACEHOLDER

_FIELD: Final = "response_format.json_schema"
_KEPT_GRAMMARS: Final = 64
_WHITE_SPACE: Final = " ?"
"""Between the parts of a value. Where a model is led off its ways, more of it would fill the answer."""
_KEYWORDS: Final = {
    "$dynamicRef", "$recursiveRef", "$ref", "additionalItems", "allOf", "anyOf", "const", "contains",
    "contentEncoding", "contentMediaType", "contentSchema", "dependencies", "dependentRequired", "dependentSchemas",
    "else", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "if", "items", "maxContains", "maxItems",
    "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
    "multipleOf", "not", "oneOf", "pattern", "patternProperties", "prefixItems", "properties", "propertyNames",
    "required", "then", "type", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
}  # fmt: skip
_NO_FORMATS: Final = FormatChecker(formats=())
"""Patterns are not Python's: the grammar's are the ones that count."""
_REASONS: Final = (
    ("Unsatisfiable", "nothing can satisfy it"),
    ("Unknown format", "it names a format that is not known"),
    ("regex", "one of its patterns is no regular expression or needs look-around"),
    ("patternProperty", "the patterns of its patternProperties match the same names"),
    ("Resource", "it refers to something outside of it"),
    ("Invalid type", "it names a type that JSON has not"),
)


class JsonConstraint:
    """One answer's grammar, and how far the answer has come. Implements `sampler.Constraint`."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._vocabulary_size = vocabulary_size

    @property
    def complete(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next: [vocabulary]. Raises StageError where the grammar got too complex."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=self._vocabulary_size, bitorder="little").view(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            raise StageError("the grammar of the answer allows no token", code="constraint_failed")
        return allowed

    def allows(self, token: int) -> bool:
        """Whether a token may come next. Where the text can go on in one way alone, any token that begins it may."""
        return bool(self._matcher.validate_tokens([token]))

    def accept(self, token: int) -> None:
        """The token that was chosen, one of those allowed."""
        if not self._matcher.consume_token(token):
            raise StageError("the grammar refuses a token that it allowed", code="constraint_failed")


class Grammars:
    """Makes constraints for one model's tokens. `tokenizer` is the text of tokenizer.json."""

    def __init__(self, tokenizer: str, vocabulary_size: int, eos_ids: Iterable[int]) -> None:
        self._vocabulary_size = vocabulary_size
        try:
            self._tokens = LLTokenizer(
                _with_placeholders_as_text(tokenizer), n_vocab=vocabulary_size, eos_token=sorted(eos_ids)
            )
        except Exception as error:  # the library's errors share no base below Exception
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: no grammar can be made over its tokenizer ({type(error).__name__})"
            ) from error
        self._made: OrderedDict[str, LLMatcher] = OrderedDict()

    def of(self, output: OutputFormat) -> JsonConstraint | None:
        """The constraint of an output format, none for text. Raises InvalidRequest for a schema it cannot follow."""
        if output.type == "text":
            return None
        text = output.json_schema if output.type == "json_schema" else '{"type":"object"}'
        key = text or ""
        matcher = self._made.get(key)
        if matcher is None:
            matcher = self._made[key] = self._compile(text)
            if len(self._made) > _KEPT_GRAMMARS:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return JsonConstraint(matcher.deep_copy(), self._vocabulary_size)

    def _compile(self, text: str | None) -> LLMatcher:
        try:
            schema: Any = schema_of(text)
        except ValueError:
            raise _refused("it is not JSON", code="invalid_json_schema") from None
        if not isinstance(schema, dict):
            raise _refused("it is not an object", code="invalid_json_schema")
        if not json_schemas.is_known(schema):
            raise _refused("its $schema names no draft that is known", code="unsupported_json_schema")
        try:
            # a schema's own settings of the library would undo ours
            schema = {name: value for name, value in json_schemas.modern(schema).items() if name != "x-guidance"}
            grammar = LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides={"whitespace_pattern": _WHITE_SPACE, "lenient": False}
            )
            matcher = LLMatcher(self._tokens, grammar, log_level=0)
            if matcher.is_error():
                raise _refused(_reason(matcher.get_error()), code="unsupported_json_schema")
            # the library passes over forms of keywords that no draft has, which fail the check of the answer
            Draft202012Validator.check_schema(schema, format_checker=_NO_FORMATS)
        except SchemaError:
            raise _refused("it breaks the rules of its own draft", code="invalid_json_schema") from None
        except RecursionError:
            raise _refused("it is nested too deeply", code="unsupported_json_schema") from None
        return matcher


def _with_placeholders_as_text(tokenizer: str) -> str:
    """The tokenizer with its placeholders among the ordinary pieces.

    The library takes every added token for a control token, which no answer may hold.
    """
    declared = json.loads(tokenizer)
    kept = []
    for added in declared["added_tokens"]:
        if added["special"] or not PLACEHOLDER.fullmatch(added["content"]):
            kept.append(added)
        else:  # letters, digits and underscores stand for themselves in every vocabulary
            declared["model"]["vocab"][added["content"]] = added["id"]
    declared["added_tokens"] = kept
    return json.dumps(declared)


def _reason(message: str) -> str:
    """What is wrong, without a word of the schema's own."""
    if message.startswith("Unimplemented keys"):
        named = sorted(_KEYWORDS & set(re.findall(r'"([^"]*)"', message)))
        return f"the model cannot be held to {', '.join(named) or 'one of its keywords'}"
    return next(
        (reason for beginning, reason in _REASONS if message.startswith(beginning)),
        "the model cannot be held to it, or it is too complex",
    )


def _refused(reason: str, *, code: str) -> InvalidRequest:
    return InvalidRequest(f"{_FIELD} cannot be used: {reason}", code=code, field=_FIELD)
