"""`penstock_preprocess.parsing`: each way in which bytes can be wrong, and what is said of it."""

from __future__ import annotations

import gc
import json
import random
import time
import weakref
from typing import Any

import pytest

from penstock.contracts.errors import LimitExceeded, PenstockError, RequestError
from penstock_preprocess.parsing import MAX_NESTING, BodyIds, read_object, validate

LIMIT = 1_048_576
SECRET = "ada@example.org"


def refusal(value: Any) -> PenstockError:
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(RequestError) as caught:
        validate(read_object(raw, LIMIT))
    return caught.value


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        (None, "empty_record", "body"),
        (b"", "invalid_json", "body"),
        (b"  \n", "invalid_json", "body"),
        (b"{", "invalid_json", "body"),
        (b"hello", "invalid_json", "body"),
        (b'{"prompt": "a"} x', "invalid_json", "body"),
        (b'{"prompt": "a\nb"}', "invalid_json", "body"),
        (b'{"prompt": "\xff\xfe"}', "invalid_utf8", "body"),
        (b'{"prompt": "\xed\xa0\x80"}', "invalid_utf8", "body"),
        (b'{"prompt": "a\0b"}', "invalid_characters", "body"),
        (b'{"prompt": "a\\u0000b"}', "invalid_characters", "prompt"),
        (b'{"prompt": "a", "metadata": {"a\\u0000": "b"}}', "invalid_characters", "metadata"),
        (b'{"prompt": "\\ud800"}', "invalid_unicode", "prompt"),
        (b'{"messages": [{"role": "user", "content": "x\\udfff"}]}', "invalid_unicode", "messages[0].content"),
        (b"[]", "invalid_field", "body"),
        (b'"text"', "invalid_field", "body"),
        (b"null", "invalid_field", "body"),
        (b'{"prompt": "a", "prompt": "b"}', "duplicate_field", "prompt"),
        (b'{"prompt": "a", "metadata": {"k": "a", "k": "b"}}', "duplicate_field", "k"),
        (b'{"prompt": "a", "temperature": NaN}', "invalid_field", "body"),
        (b'{"prompt": "a", "temperature": -Infinity}', "invalid_field", "body"),
        (b'{"prompt": "a", "temperature": 1e999}', "invalid_field", "body"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "invalid_field", "body"),
        ({}, "missing_field", "messages"),
        ({"model": "m"}, "missing_field", "messages"),
        ({"prompt": None}, "missing_field", "messages"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "invalid_field", "messages"),
        ({"prompt": "a", "max_tokens": 1, "max_completion_tokens": 1}, "invalid_field", "max_tokens"),
        ({"prompt": 5}, "invalid_field", "prompt"),
        ({"prompt": "a", "max_tokens": -1}, "invalid_field", "max_tokens"),
        ({"prompt": "a", "max_tokens": 0}, "invalid_field", "max_tokens"),
        ({"prompt": "a", "max_tokens": "5"}, "invalid_field", "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "invalid_field", "max_tokens"),
        ({"prompt": "a", "max_tokens": True}, "invalid_field", "max_tokens"),
        ({"prompt": "a", "temperature": 2.5}, "invalid_field", "temperature"),
        ({"prompt": "a", "temperature": "hot"}, "invalid_field", "temperature"),
        ({"prompt": "a", "top_p": 0}, "invalid_field", "top_p"),
        ({"prompt": "a", "top_k": 0}, "invalid_field", "top_k"),
        ({"prompt": "a", "min_p": 1.5}, "invalid_field", "min_p"),
        ({"prompt": "a", "presence_penalty": 3}, "invalid_field", "presence_penalty"),
        ({"prompt": "a", "frequency_penalty": -2.1}, "invalid_field", "frequency_penalty"),
        ({"prompt": "a", "repetition_penalty": 0}, "invalid_field", "repetition_penalty"),
        ({"prompt": "a", "logprobs": 3}, "invalid_field", "logprobs"),
        ({"prompt": "a", "logprobs": True, "top_logprobs": 21}, "invalid_field", "top_logprobs"),
        ({"prompt": "a", "top_logprobs": 2}, "invalid_field", "top_logprobs"),
        ({"prompt": "a", "logprobs": False, "top_logprobs": 0}, "invalid_field", "top_logprobs"),
        ({"prompt": "a", "seed": 10**30}, "invalid_field", "seed"),
        ({"prompt": "a", "n": 0}, "invalid_field", "n"),
        ({"prompt": "a", "n": 9}, "invalid_field", "n"),
        ({"prompt": "a", "n": True}, "invalid_field", "n"),
        ({"prompt": "a", "stream": "yes"}, "invalid_field", "stream"),
        ({"prompt": "a", "stop": ["a", "b", "c", "d", "e"]}, "invalid_field", "stop"),
        ({"prompt": "a", "stop": [""]}, "invalid_field", "stop"),
        ({"prompt": "a", "stop": 3}, "invalid_field", "stop"),
        ({"prompt": "a", "request_id": "a b"}, "invalid_field", "request_id"),
        ({"prompt": "a", "colour": 1}, "unknown_field", "colour"),
        ({"prompt": "a", "metadata": {"ada": 5}}, "invalid_field", "metadata.*"),
        ({"prompt": "a", "response_format": {"type": "xml"}}, "invalid_field", "response_format.type"),
        ({"messages": []}, "invalid_field", "messages"),
        ({"messages": {}}, "invalid_field", "messages"),
        ({"messages": ["hi"]}, "invalid_field", "messages[0]"),
        ({"messages": [{"role": "user"}]}, "missing_field", "messages[0].content"),
        ({"messages": [{"content": "x"}]}, "missing_field", "messages[0].role"),
        ({"messages": [{"role": "king", "content": "x"}]}, "invalid_field", "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_field", "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "invalid_field", "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "image": 1}]}, "unknown_field", "messages[0].image"),
    ],
)
def test_each_way_to_be_wrong_has_its_code_and_field(value: Any, code: str, field: str) -> None:
    error = refusal(value)
    assert (error.code, error.field) == (code, field)
    assert (error.field or "").split(".")[0].split("[")[0] in error.message


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "a", SECRET: 1},
        {"prompt": "a", "x" * 65: 1},
        {"prompt": "a", "temperature": SECRET},
        {"prompt": "a", "request_id": SECRET},
        {"prompt": "a", "metadata": {SECRET: 1}},
        {"prompt": "a", "n": SECRET},
        {"prompt": "a", "response_format": {"type": SECRET}},
        {"messages": [{"role": SECRET, "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": SECRET, "text": "a"}]}]},
        {"messages": [{"role": "user", "content": "a", "name": SECRET * 9}]},
        b'{"' + SECRET.encode() + b'": 1, "' + SECRET.encode() + b'": 2}',
        b'{"prompt": "' + SECRET.encode() + b'"',
        b'{"prompt": "' + SECRET.encode() + b'\\ud800"}',
        b'{"prompt": "' + SECRET.encode() + b'\xff"}',
        json.dumps([SECRET]).encode(),
    ],
)
def test_no_error_quotes_a_value(value: Any) -> None:
    error = refusal(value)
    said = f"{error.message} {error.field} {error.limit} {error!r}"
    assert "ada@" not in said
    assert "example.org" not in said
    assert "x" * 65 not in said


def test_errors_name_the_limit_and_the_shape() -> None:
    error = refusal({"prompt": "a", "max_tokens": -5})
    assert error.message == "max_tokens: expected at least 1, got a number"
    assert error.limit == 1
    error = refusal({"prompt": ["a", "b"]})
    assert error.message == "prompt: expected a string, got an array of 2 items"


def test_json_errors_say_where() -> None:
    assert "line 2, column 3" in refusal(b"{\n  oops}").message


def test_a_body_above_the_limit_is_refused_at_once() -> None:
    body = b'{"prompt": "' + b"a" * 10_000_000 + b'"}'
    begun = time.thread_time()
    error = refusal(body)
    assert time.thread_time() - begun < 0.05
    assert isinstance(error, LimitExceeded)
    assert (error.code, error.limit) == ("limit_exceeded", LIMIT)
    assert str(len(body)) in error.message


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 100, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_without_recursion(levels: int, opening: bytes, closing: bytes) -> None:
    value = opening * levels + b"1" + closing * levels
    error = refusal(value) if len(value) <= LIMIT else refusal(value[:LIMIT])
    assert (error.code, error.limit) == ("nesting_too_deep", MAX_NESTING)


def test_nesting_up_to_the_limit_and_brackets_in_strings_pass() -> None:
    inner: Any = 1
    for _ in range(MAX_NESTING - 3):
        inner = [inner]
    body = {"prompt": '[{"' * 500 + "\\", "response_format": {"type": "json_schema", "json_schema": {"a": inner}}}
    assert validate(read_object(json.dumps(body).encode(), LIMIT)).prompt == '[{"' * 500 + "\\"


def test_a_flat_megabyte_of_brackets_is_read_in_bounded_time() -> None:
    value = b"[" + b"[]," * 349_000 + b"[]]"
    begun = time.thread_time()
    assert refusal(value).code == "invalid_field"
    assert time.thread_time() - begun < 5  # without the bound on nesting it takes minutes


def test_surrogate_pairs_and_a_byte_order_mark_are_fine() -> None:
    document = read_object(b'\xef\xbb\xbf{"prompt": "\\ud83d\\ude00"}', LIMIT)
    assert validate(document).prompt == "\U0001f600"


def test_ids_are_kept_from_a_body_that_is_refused() -> None:
    document = read_object(b'{"request_id": "r-1", "tenant": 5, "conversation_id": "a b"}', LIMIT)
    assert BodyIds.of(document) == BodyIds(request_id="r-1")


def test_an_id_with_a_line_feed_at_its_end_is_none() -> None:
    assert BodyIds.of({"request_id": "r-1\n"}) == BodyIds()


def test_random_bytes_give_a_request_or_a_typed_error() -> None:
    source = random.Random(20260101)
    seed = json.dumps({"messages": [{"role": "user", "content": "h\u00e9"}], "max_tokens": 5, "stop": ["x"]}).encode()
    outcomes: set[str] = set()
    for _ in range(3_000):
        value = bytearray(seed)
        for _ in range(source.randint(1, 6)):
            value[source.randrange(len(value))] = source.randrange(256)
        try:
            validate(read_object(bytes(value), LIMIT))
            outcomes.add("accepted")
        except RequestError as error:
            outcomes.add(error.code)
    assert {"accepted", "invalid_json", "invalid_utf8", "unknown_field"} <= outcomes


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, {"prompt": 1}])
def test_a_refused_request_is_freed(body: dict[str, Any]) -> None:
    def refused() -> weakref.ref[RequestError]:
        held = None
        try:
            validate(body)
        except RequestError as error:
            held = error  # as the stage holds it: a cycle through the error's own frames
        assert held is not None
        return weakref.ref(held)

    one = refused()
    gc.collect()
    assert one() is None
