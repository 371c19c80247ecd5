"""Bad input by the thousand, drawn with Hypothesis from a seed: the contract's edges, JSON and plain bytes.

Each comes with the error codes it may end with. That an input is bad is certain by the way it is made, not
found out by asking the product.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.control import BuildContext
from hypothesis.errors import StopTest
from hypothesis.internal.conjecture.data import ConjectureData
from hypothesis.strategies import SearchStrategy
from tests.support.kafka import Publishing

from penstock.contracts.request import MAX_MESSAGES, MAX_STOP_STRINGS, MAX_TOKENS_CEILING

WHOLE = {"prompt": "What is a river?", "max_tokens": 4}
BODY = json.dumps(WHOLE).encode()
MAX_BODY_BYTES = 1_048_576

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Bad:
    """A bad input: its family, what is published, and the codes of which it gets one."""

    family: str
    value: bytes | None
    codes: frozenset[str]
    headers: Headers = ()
    key: bytes | None = None
    noise: Headers = field(default=(), repr=False)
    """Headers of other programs, which change nothing."""

    @property
    def publishing(self) -> Publishing:
        """The record to send."""
        return Publishing(self.value, [*self.noise, *self.headers], self.key)


def bad_inputs(count: int, seed: int) -> list[Bad]:
    """`count` of them, no two records alike; the same for the same seed."""
    # what `given` draws is like what it drew before: here every draw is a new one
    chosen, strategy = random.Random(seed), _any()
    found: dict[object, Bad] = {}
    for _ in range(count * 20):
        data = ConjectureData(random=chosen)
        try:
            with BuildContext(data, is_final=False, wrapped_test=bad_inputs):
                bad = data.draw(strategy)
        except StopTest:
            continue  # a filter refused what was drawn
        # a second one of an id would be a duplicate besides
        own = dict(bad.headers).get("request-id") if bad.family == "two ids" else None
        found.setdefault(own or (bad.value, tuple(bad.headers), tuple(bad.noise), bad.key), bad)
        if len(found) == count:
            return list(found.values())
    raise RuntimeError(f"only {len(found)} inputs were drawn")


def _any() -> SearchStrategy[Bad]:
    families = [
        *[_plain_bytes(), _texts(), _no_object(), _unknown_fields(), _cut_off(), _twice(), _field_twice()],
        *[_wrong_types(), _wrong_types(), _beyond_limits(), _bad_utf8(), _nul(), _numbers(), _deep(), _surrogates()],
        *[_empty(), _bad_headers(), _bad_headers(), _schemas(), _late(), _contradictions(), _models()],
    ]
    return st.builds(_with_noise, st.one_of(families), _KEYS, _NOISE)


def _with_noise(bad: Bad, key: bytes | None, noise: Headers) -> Bad:
    return Bad(bad.family, bad.value, bad.codes, bad.headers, key, noise)


_KEYS = st.none() | st.binary(max_size=40)
_NOISE = st.lists(
    st.tuples(
        st.sampled_from(["traceparent", "tracestate", "baggage", "ce_id", "content-type", "not-before", "x", "ü"]),
        st.none() | st.binary(max_size=60),
    ),
    max_size=3,
)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
_WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_JSON = st.recursive(
    _SCALARS | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=6,
)


def _bad(family: str, value: bytes | None, *codes: str, headers: Headers = ()) -> Bad:
    return Bad(family, value, frozenset(codes), headers)


def _dump(document: object) -> bytes:
    return json.dumps(document).encode()


def _with(**fields: object) -> bytes:
    return _dump({**WHOLE, **fields})


def _without_prompt(**fields: object) -> bytes:
    return _dump({"max_tokens": 4, **fields})


def _looks_like_json(value: bytes) -> bool:
    return value.strip()[:1] in (b"{", b"[", b'"') or value.startswith(b"\xef\xbb\xbf")


# --- bytes and JSON


def _plain_bytes() -> SearchStrategy[Bad]:
    codes = ("invalid_json", "invalid_utf8", "invalid_characters", "invalid_field")
    plain = st.binary(max_size=300).filter(lambda value: not _looks_like_json(value))
    return plain.map(lambda value: _bad("bytes", value, *codes))


def _texts() -> SearchStrategy[Bad]:
    # a number or a word of JSON is JSON, and no object
    plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=120).map(str.encode)
    codes = ("invalid_json", "invalid_characters", "invalid_field")
    return plain.filter(lambda value: not _looks_like_json(value)).map(lambda value: _bad("text", value, *codes))


def _no_object() -> SearchStrategy[Bad]:
    plain = _JSON.filter(lambda value: not isinstance(value, dict))
    return plain.map(lambda value: _bad("no object", _dump(value), "invalid_field"))


def _unknown_fields() -> SearchStrategy[Bad]:
    names = st.from_regex(r"x_[a-z0-9_]{0,20}", fullmatch=True) | _WORDS.map("ä".__add__)
    return st.builds(lambda name, value: _bad("unknown field", _with(**{name: value}), "unknown_field"), names, _JSON)


def _cut_off() -> SearchStrategy[Bad]:
    whole = _WORDS.map(lambda text: _with(user=text[:30], stop=["a", text[:20] or "b"], temperature=0.5))
    return st.builds(
        lambda value, at: _bad("cut off", value[: at % len(value)], "invalid_json"), whole, st.integers(0, 100_000)
    )


def _twice() -> SearchStrategy[Bad]:
    between = st.sampled_from([b"", b" ", b"\n", b",", b"\x1e", b"]"])
    return st.builds(
        lambda sep, count: _bad("document twice", sep.join([BODY] * count), "invalid_json"), between, st.integers(2, 5)
    )


def _field_twice() -> SearchStrategy[Bad]:
    again = st.sampled_from(["prompt", "max_tokens"])
    return st.builds(
        lambda name, value: _bad(
            "field twice", BODY[:-1] + b", " + _dump({name: value})[1:-1] + b"}", "duplicate_field"
        ),
        again,
        _JSON,
    )


def _bad_utf8() -> SearchStrategy[Bad]:
    wrong = st.sampled_from([b"\xff", b"\xfe\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80"])
    return st.builds(
        lambda text, bytes_: _bad("bad UTF-8", b'{"prompt": "' + text.encode() + bytes_ + b'"}', "invalid_utf8"),
        st.text("abc é", max_size=40),
        wrong,
    )


def _nul() -> SearchStrategy[Bad]:
    def made(raw: bool, before: str, at: int) -> Bad:
        documents = (
            {"prompt": f"{before}\0"},
            {"messages": [{"role": "user", "content": f"{before}\0"}]},
            {"prompt": "river", "metadata": {"a": f"{before}\0"}},
            {"prompt": "river", f"{before}\0": 1},
        )
        value = _dump(documents[at])
        return _bad("NUL", value.replace(b"\\u0000", b"\0") if raw else value, "invalid_characters")

    return st.builds(made, st.booleans(), st.text("abc", max_size=20), st.integers(0, 3))


def _numbers() -> SearchStrategy[Bad]:
    huge = st.integers(65, 4_000).map(lambda digits: "9" * digits)
    far = st.integers(309, 10**7).map("1e{}".format)
    words = st.sampled_from(["NaN", "Infinity", "-Infinity", "-1e999", "1e-0000000000" + "0" * 60])
    name = st.sampled_from(["temperature", "top_p", "max_tokens", "seed", "n", "metadata", "x"])
    return st.builds(
        lambda name, number: _bad("number", f'{{"prompt": "a", "{name}": {number}}}'.encode(), "invalid_field"),
        name,
        huge | far | words,
    )


def _deep() -> SearchStrategy[Bad]:
    def made(depth: int, opened: str, closed: bool, at: str) -> Bad:
        close = {"[": "]", '{"a":': "}"}[opened]
        value = f'{{"{at}": {opened * depth}1{close * depth if closed else ""}}}'
        return _bad("deep", value.encode(), "nesting_too_deep")

    names = st.sampled_from(["prompt", "metadata", "response_format", "x"])
    return st.builds(made, st.integers(32, 5_000), st.sampled_from(["[", '{"a":']), st.booleans(), names)


def _surrogates() -> SearchStrategy[Bad]:
    half = st.integers(0xD800, 0xDFFF).map("\\u{:04x}".format)
    return st.builds(
        lambda half, text: _bad("surrogate", f'{{"prompt": "{text}{half}{text}"}}'.encode(), "invalid_unicode"),
        half,
        st.text("abc", max_size=10),
    )


def _empty() -> SearchStrategy[Bad]:
    blank = st.text(" \t\n\r", max_size=20).map(lambda text: _bad("blank", text.encode(), "invalid_json"))
    unseen = st.text(" \n\t\u200b\u200d\u2060\ufeff", max_size=20)
    prompts = unseen.map(lambda text: _bad("empty prompt", _with(prompt=text), "empty_prompt"))
    said = unseen.map(lambda text: _without_prompt(messages=[{"role": "user", "content": text}]))
    messages = said.map(lambda value: _bad("empty prompt", value, "empty_prompt"))
    return st.one_of(st.just(_bad("no value", None, "empty_record")), blank, prompts, messages)


# --- the contract


def _without(*kinds: type) -> SearchStrategy[Any]:
    """JSON values of none of these types and not null, which is the same as leaving the field out."""

    def fits(value: object) -> bool:
        number = isinstance(value, bool) and bool not in kinds
        return value is not None and (number or not isinstance(value, kinds))

    return _JSON.filter(fits)


def _wrong_types() -> SearchStrategy[Bad]:
    text, whole, number = _without(str), _without(int), _without(int, float)
    fields: dict[str, SearchStrategy[Any]] = {
        **dict.fromkeys(["model", "user", "request_id", "conversation_id", "tenant", "prompt"], text),
        **dict.fromkeys(["max_tokens", "seed", "n"], whole),
        **dict.fromkeys(["temperature", "top_p"], number),
        "stream": _without(bool),
        "metadata": _without(dict) | st.dictionaries(_WORDS, text | st.none(), min_size=1, max_size=3),
        "response_format": _without(dict) | _without(str).map(lambda value: {"type": value}),
        "stop": _without(str, list) | st.lists(text | st.none(), min_size=1, max_size=4),
    }
    flat = st.sampled_from(sorted(fields)).flatmap(
        lambda name: fields[name].map(lambda value: _bad("wrong type", _with(**{name: value}), *_OF_FIELDS))
    )
    message = {"role": "user", "content": "river"}
    parts: SearchStrategy[dict[str, Any]] = st.one_of(
        (text | st.none()).map(lambda value: {**message, "role": value}),
        text.map(lambda value: {**message, "name": value}),
        (_without(str, list) | st.none()).map(lambda value: {**message, "content": value}),
        _without(dict).map(lambda value: {**message, "content": [value]}),
        (text | st.none()).map(lambda value: {**message, "content": [{"type": "text", "text": value}]}),
        _JSON.map(lambda value: {**message, "x_extra": value}),
    )
    nested = st.builds(
        lambda before, part: _bad(
            "wrong type in messages", _without_prompt(messages=[message] * before + [part]), *_OF_FIELDS
        ),
        st.integers(0, 4),
        parts | _without(dict),
    )
    instead = _without(list).map(lambda value: _bad("wrong type", _without_prompt(messages=value), *_OF_FIELDS))
    return st.one_of(flat, nested, instead)


_OF_FIELDS = ("invalid_field", "missing_field", "unknown_field")


def _beyond_limits() -> SearchStrategy[Bad]:
    message = {"role": "user", "content": "river"}
    over = st.integers(1, 40)
    limits: dict[str, SearchStrategy[bytes]] = {
        "messages": over.map(lambda n: _without_prompt(messages=[message] * (MAX_MESSAGES + n))),
        "no messages": st.just(_without_prompt(messages=[])),
        "no parts": st.just(_without_prompt(messages=[{"role": "user", "content": []}])),
        "parts": over.map(
            lambda n: _without_prompt(
                messages=[{"role": "user", "content": [{"type": "text", "text": "a"}] * (64 + n)}]
            )
        ),
        "name": over.map(lambda n: _without_prompt(messages=[{**message, "name": "a" * (64 + n)}])),
        "role": st.text("abcuser", min_size=5, max_size=12).map(
            lambda role: _without_prompt(messages=[{**message, "role": role}])
        ),
        "model": over.map(lambda n: _with(model="m" * (128 + n))),
        "no model": st.just(_with(model="")),
        "temperature above": st.floats(2, 1e300, exclude_min=True).map(lambda x: _with(temperature=x)),
        "temperature below": st.floats(-1e300, 0, exclude_max=True)
        .map(lambda x: _with(temperature=x))
        .filter(lambda value: b"-0.0" not in value),
        "top_p above": st.floats(1, 1e300, exclude_min=True).map(lambda x: _with(top_p=x)),
        "top_p below": st.floats(-1e300, 0).map(lambda x: _with(top_p=x)),
        "max_tokens above": over.map(lambda n: _with(max_tokens=MAX_TOKENS_CEILING + n)),
        "max_tokens below": st.integers(-(2**65), 0).map(lambda n: _with(max_tokens=n)),
        "stop": over.map(lambda n: _with(stop=["a"] * (MAX_STOP_STRINGS + n))),
        "stop string": over.map(lambda n: _with(stop="a" * (256 + n))),
        "no stop string": st.just(_with(stop=["a", ""])),
        "seed above": over.map(lambda n: _with(seed=2**63 - 1 + n)),
        "seed below": over.map(lambda n: _with(seed=-(2**63) - n)),
        "n": st.integers(9, 2**70).map(lambda n: _with(n=n)),
        "user": over.map(lambda n: _with(user="a" * (256 + n))),
        "metadata": over.map(lambda n: _with(metadata={f"m{i}": "a" for i in range(16 + n)})),
        "id": over.map(lambda n: _with(request_id="a" * (128 + n))),
        "id form": st.text(" /äö\n$", min_size=1, max_size=20).map(lambda text: _with(conversation_id=text)),
        "format": st.text("abcjson_", max_size=12).map(lambda text: _with(response_format={"type": text + "!"})),
    }
    fields = st.sampled_from(sorted(limits)).flatmap(
        lambda name: limits[name].map(lambda value: _bad("limit", value, "invalid_field"))
    )
    # a MiB each: a few in a hundred of this family are enough
    size = st.integers(1, 1_000).map(
        lambda n: _bad("limit of the body", b" " * (MAX_BODY_BYTES + n - len(BODY)) + BODY, "limit_exceeded")
    )
    return st.integers(0, 24).flatmap(lambda n: size if n == 0 else fields)


def _contradictions() -> SearchStrategy[Bad]:
    messages = [{"role": "user", "content": "river"}]
    one = _WORDS.filter(lambda text: bool(text.strip()))
    return st.one_of(
        one.map(lambda text: _bad("contradiction", _dump({"prompt": text, "messages": messages}), "invalid_field")),
        st.integers(1, 9).map(lambda n: _bad("contradiction", _with(max_completion_tokens=n), "invalid_field")),
        st.integers(1, 10**9).map(
            lambda n: _bad(
                "two ids",
                _with(request_id=f"body-{n}"),
                "invalid_field",
                headers=[("request-id", f"header-{n}".encode())],
            )
        ),
        st.integers(1, 9).map(lambda n: _bad("neither", _dump({"max_tokens": n}), "missing_field")),
        st.just(_bad("no schema", _with(response_format={"type": "json_schema"}), "missing_field")),
    )


def _models() -> SearchStrategy[Bad]:
    names = st.text("abcdefg-0123456789", min_size=1, max_size=40).map("no-model-".__add__)
    return st.one_of(
        names.map(lambda name: _bad("model", _with(model=name), "unknown_model")),
        st.integers(100_000, MAX_TOKENS_CEILING).map(lambda n: _bad("room", _with(max_tokens=n), "limit_exceeded")),
    )


# --- headers


def _bad_headers() -> SearchStrategy[Bad]:
    known = ["request-id", "conversation-id", "tenant", "priority", "deadline", "attempt", "redrive-of"]
    not_text = st.sampled_from([b"\xff", b"\xc3", b"a\xfe", b"\xed\xa0\x80"])
    long = st.integers(1_025, 3_000).map(lambda n: b"a" * n)
    odd = st.text(" /ä\n\0$%", min_size=1, max_size=30).map(str.encode)
    words = st.sampled_from([b"", b"-1", b"1.5", b"1e3", b"0x10", b"9" * 30, "\u0664".encode(), b"null", b"{}", b" 1"])
    anywhere = st.tuples(st.sampled_from([*known, "schema"]), not_text | long)
    formed = st.tuples(st.sampled_from(known), odd)
    valued = st.tuples(st.sampled_from(["priority", "deadline", "attempt", "redrive-of"]), words)
    body = st.sampled_from([BODY, b"", b"{", None])
    return st.builds(
        lambda header, value: _bad("header", value, "invalid_header", headers=[header]),
        anywhere | formed | valued,
        body,
    )


def _schemas() -> SearchStrategy[Bad]:
    newer = st.integers(2, 99_999).map(lambda n: (f"penstock.completion-request/{n}", "unsupported_schema_version"))
    other = st.from_regex(r"penstock\.[a-z][a-z-]{0,20}/[1-9]", fullmatch=True).map(
        lambda text: (text.replace("completion-request", "another"), "unknown_schema")
    )
    formless = st.text("abc./0 é", max_size=40).map(lambda text: (text, "unknown_schema"))
    odd = st.sampled_from(["/1", "penstock.completion-request/0", "penstock.completion-request/100000", "", "1"])
    schemas = st.one_of(newer, other, formless, odd.map(lambda text: (text, "unknown_schema")))
    return schemas.map(lambda found: _bad("schema", BODY, found[1], headers=[("schema", found[0].encode())]))


def _late() -> SearchStrategy[Bad]:
    # within what no clock of a test machine is behind
    passed = st.integers(0, 1_500_000_000_000)
    return passed.map(lambda ms: _bad("late", BODY, "deadline_exceeded", headers=[("deadline", b"%d" % ms)]))
