"""Answers held to JSON and to schemas, whatever the model would rather say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.support.generation import answers
from tokenizers import Tokenizer

from penstock.contracts.errors import ConfigurationError, InvalidRequest, StageError
from penstock.contracts.events import GenerationParameters, OutputFormat, PromptPart
from penstock_inference.backend import GenerationRequest
from penstock_inference.constraints import Grammars, JsonConstraint
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits

SHIPPED = Path(__file__).parents[3] / "deploy" / "models" / "penstock-lm"
TINY = Path(__file__).parents[2] / "fixtures" / "tiny-lm"
VOCABULARY = 352
EOS = 2
OBJECT = OutputFormat(type="json_object")


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


SCHEMAS: list[dict[str, Any]] = [
    closed(a={"type": "integer", "minimum": 0, "maximum": 99}),
    closed(kind={"enum": ["x", "yy", "z z"]}, ok={"type": "boolean"}),
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {
        **closed(name={"type": "string", "maxLength": 6}, of={"$ref": "#/$defs/of"}),
        "$defs": {"of": {"type": ["null", "boolean"]}},
    },
    {"anyOf": [{"const": {"a": 1}}, {"type": "array", "items": {"const": "<PERSON_1>"}, "minItems": 1, "maxItems": 2}]},
    closed(when={"type": "string", "pattern": "^[0-9]{4}-[01][0-9]$"}),
]


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars((TINY / "tokenizer.json").read_text(), VOCABULARY, [EOS])


@pytest.fixture(scope="module")
def backend() -> LocalBackend:
    return LocalBackend.load(TINY, Limits(rows=4))


def schema(document: Any) -> OutputFormat:
    return OutputFormat(type="json_schema", json_schema=json.dumps(document))


def request(key: int, output: OutputFormat, **more: Any) -> GenerationRequest:
    parameters = GenerationParameters(**{"model": "tiny", "max_tokens": 120, "output": output, **more})
    return GenerationRequest(key, (PromptPart(kind="text", text="the model"),), parameters, seed=key)


@pytest.mark.parametrize("document", SCHEMAS, ids=range(len(SCHEMAS)))
def test_a_model_of_random_weights_follows_every_schema(backend: LocalBackend, document: dict[str, Any]) -> None:
    requests = [
        request(key, schema(document), temperature=temperature) for key, temperature in enumerate((0.0, 1.0, 2.0))
    ]
    for text, reason in answers(backend, *requests).values():
        assert reason == "stop"
        Draft202012Validator(document).validate(json.loads(text))


def test_white_space_does_not_fill_an_answer(backend: LocalBackend) -> None:
    requests = [request(key, schema(SCHEMAS[1]), temperature=2.0) for key in range(20)]
    for text, _ in answers(backend, *requests).values():
        parts = json.loads(text)
        assert len(text) <= len(json.dumps(parts)) + 6


def test_the_wrapping_object_of_the_api_is_taken_off(backend: LocalBackend) -> None:
    wrapped = schema({"name": "flag", "strict": True, "schema": {"enum": [True]}})
    assert answers(backend, request(1, wrapped)) == {1: ("true", "stop")}


def test_an_answer_is_the_same_beside_others(backend: LocalBackend) -> None:
    requests = [request(key, schema(SCHEMAS[key % 6]), temperature=key % 3 / 2) for key in range(12)]
    alone = {each.key: answers(backend, each)[each.key] for each in requests}
    free = request(99, OutputFormat(), temperature=1.0)
    together = answers(backend, *requests, free)
    assert together.pop(99) == answers(backend, free)[99]
    assert together == alone


def test_a_cut_off_answer_says_so(backend: LocalBackend) -> None:
    ((text, reason),) = answers(backend, request(1, schema({"const": "a long constant"}), max_tokens=3)).values()
    assert reason == "length"
    assert '"a long constant"'.startswith(text)


def drawn(constraint: JsonConstraint, bits: list[int]) -> str | None:
    """Follow the constraint by a list of choices; the text, None where it is not complete by then."""
    tokens = []
    for each in bits:
        allowed = np.flatnonzero(constraint.allowed())
        token = int(allowed[each % len(allowed)])
        constraint.accept(token)
        if token == EOS or constraint.complete:
            return "".join(tokens) if token == EOS else "".join([*tokens, spelled(token)])
        tokens.append(spelled(token))
    return None


def spelled(token: int) -> str:
    """Latin letters of a byte-level vocabulary stand for themselves."""
    vocabulary = json.loads((TINY / "tokenizer.json").read_text())["model"]["vocab"]
    return next(text for text, number in vocabulary.items() if number == token).replace("Ġ", " ").replace("Ċ", "\n")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=60, max_size=60), st.integers(0, len(SCHEMAS) - 1))
def test_whatever_is_chosen_of_what_is_allowed_follows_the_schema(
    grammars: Grammars, bits: list[int], which: int
) -> None:
    if which == 3:  # its strings may be any bytes, which `spelled` does not know
        which = 0
    constraint = grammars.of(schema(SCHEMAS[which]))
    assert constraint is not None
    text = drawn(constraint, bits)
    if text is not None:
        Draft202012Validator(SCHEMAS[which]).validate(json.loads(text))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=12), st.integers(0, len(SCHEMAS) - 1))
def test_what_is_allowed_of_all_is_allowed_by_itself(grammars: Grammars, bits: list[int], which: int) -> None:
    constraint = grammars.of(schema(SCHEMAS[which]))
    assert constraint is not None
    for each in bits:
        choice = np.flatnonzero(constraint.allowed())
        constraint.accept(int(choice[each % len(choice)]))
        if constraint.complete:
            return
    together = set(np.flatnonzero(constraint.allowed()).tolist())
    alone = {token for token in range(VOCABULARY) if constraint.allows(token)}
    assert together <= alone
    # where the text can go on in one way alone, the mask leaves the longest token of it, of several
    assert together == alone or len(together) == 1


def test_json_object_begins_with_a_brace_and_control_tokens_are_no_text(grammars: Grammars) -> None:
    constraint = grammars.of(OBJECT)
    assert constraint is not None
    vocabulary = json.loads((TINY / "tokenizer.json").read_text())["model"]["vocab"]
    assert {int(each) for each in np.flatnonzero(constraint.allowed())} == {
        number for text, number in vocabulary.items() if text.startswith("{")
    }
    constraint.accept(vocabulary["{"])
    assert not constraint.allowed()[:3].any()
    constraint.accept(vocabulary["}"])
    assert constraint.complete


def test_text_has_no_constraint_and_requests_of_one_schema_do_not_meet(grammars: Grammars) -> None:
    assert grammars.of(OutputFormat()) is None
    first, second = grammars.of(OBJECT), grammars.of(OBJECT)
    assert first is not None
    assert second is not None
    before = second.allowed()
    first.accept(int(np.flatnonzero(before)[0]))
    np.testing.assert_array_equal(second.allowed(), before)


def test_a_token_that_is_not_allowed_is_an_error(grammars: Grammars) -> None:
    constraint = grammars.of(OBJECT)
    assert constraint is not None
    with pytest.raises(StageError) as caught:
        constraint.accept(200)
    assert caught.value.code == "constraint_failed"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"not": {"const": "Anna"}}, "held to not"),
        ({"if": {"const": "Anna"}, "then": False}, "held to if, then"),
        ({"type": "array", "uniqueItems": True}, "held to uniqueItems"),
        ({"type": "string", "format": "Anna"}, "a format that is not known"),
        ({"type": "string", "pattern": "(?=Anna)"}, "look-around"),
        ({"type": "string", "pattern": "(Anna"}, "no regular expression"),
        ({"$ref": "https://example.org/Anna"}, "outside of it"),
        ({"type": "Anna"}, "a type that JSON has not"),
        ({"type": "object", "required": ["Anna"], "additionalProperties": False}, "nothing can satisfy it"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "nothing can satisfy it"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused_without_its_words(
    backend: LocalBackend, document: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        backend.add(request(1, schema(document)))
    error = refused.value
    assert (error.code, error.field) == ("unsupported_json_schema", "response_format.json_schema")
    assert says in error.message
    assert "Anna" not in error.message
    assert not backend.step()


@pytest.mark.parametrize("text", [None, "", "{", "[]", '"text"', "5"])
def test_what_is_no_schema_is_refused(grammars: Grammars, text: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        grammars.of(OutputFormat(type="json_schema", json_schema=text))
    assert refused.value.code == "invalid_json_schema"


def test_placeholders_that_are_single_tokens_may_stand_in_texts_and_control_tokens_may_not() -> None:
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    constraint = Grammars(tokenizer.to_str(), tokenizer.get_vocab_size(), [EOS]).of(OBJECT)
    assert constraint is not None
    for token in tokenizer.encode('{"email": "').ids:
        constraint.accept(token)
    allowed = constraint.allowed()
    assert allowed[tokenizer.token_to_id("<EMAIL_ADDRESS_1>")]
    assert not allowed[tokenizer.token_to_id("<|user|>")]
    assert not allowed[EOS]
    for token in tokenizer.encode('<EMAIL_ADDRESS_1>"}').ids:
        constraint.accept(token)
    assert constraint.complete


def test_a_schema_cannot_change_how_it_is_read(backend: LocalBackend) -> None:
    own = schema({**closed(a={"const": 1}), "x-guidance": {"key_separator": ";", "whitespace_flexible": False}})
    ((text, reason),) = answers(backend, request(1, own)).values()
    assert (json.loads(text), reason) == ({"a": 1}, "stop")


def test_refuses_a_tokenizer_it_cannot_read() -> None:
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_MODEL_DIR"):
        Grammars("{}", VOCABULARY, [EOS])
