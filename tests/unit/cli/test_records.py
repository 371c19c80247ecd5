"""Lines to records: ids, keys, headers, limits; what is malformed goes out byte for byte."""

from __future__ import annotations

import io
import json

import pytest

from penstock.cli.records import Line, Stamp, compose, hard_limit, read_lines
from penstock.contracts.errors import LimitExceeded
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.request import CompletionRequest

NOW_MS = 1_700_000_000_000


def line(value: bytes, number: int = 12) -> Line:
    return Line(number, len(value) + 1, value)


def stamp(**changes: object) -> Stamp:
    return Stamp(**{"stem": "requests", "run": "ab12", **changes})  # type: ignore[arg-type]  # a test's shorthand


def test_lines_keep_their_numbers_and_lose_line_ends_and_blanks() -> None:
    found = list(read_lines(io.BytesIO(b'{"a":1}\r\n\n   \n{"b":2}\nlast'), limit=100))
    assert [(one.number, one.value) for one in found] == [(1, b'{"a":1}'), (4, b'{"b":2}'), (5, b"last")]


def test_a_line_over_the_limit_is_not_held_and_the_next_one_is_read() -> None:
    found = list(read_lines(io.BytesIO(b"x" * 3_000_000 + b"\nnext\n"), limit=10))
    assert [(one.number, one.size, one.value) for one in found] == [(1, 3_000_001, None), (2, 5, b"next")]


def test_a_line_just_at_the_limit_is_kept() -> None:
    found = list(read_lines(io.BytesIO(b"x" * 10 + b"\ny"), limit=10))
    assert [one.value for one in found] == [b"x" * 10, b"y"]


def test_the_bodys_id_becomes_header_and_key() -> None:
    outgoing = compose(line(b'{"request_id": "r-1", "prompt": "hi"}'), stamp(), NOW_MS)
    assert (outgoing.request_id, outgoing.key) == ("r-1", b"r-1")
    assert RequestHeaders.parse(outgoing.headers).request_id == "r-1"


def test_the_conversation_is_the_key() -> None:
    outgoing = compose(line(b'{"request_id": "r-1", "conversation_id": "c-9", "prompt": "hi"}'), stamp(), NOW_MS)
    assert outgoing.key == b"c-9"


def test_a_body_without_id_gets_one_of_file_line_and_run() -> None:
    outgoing = compose(line(b'{"prompt": "hi"}'), stamp(stem="my requests!"), NOW_MS)
    assert outgoing.request_id == "my-requests-012-ab12"
    assert outgoing.value == b'{"prompt": "hi"}'


@pytest.mark.parametrize(
    "value",
    [
        b"not JSON",
        b"[1, 2]",
        b'{"prompt": "caf\xe9"}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 10_000 + b"}",
        b'{"request_id": 17, "prompt": "hi"}',
        b'{"prompt": "a", "request_id": "r-1\\n"}',
    ],
)
def test_what_is_malformed_is_sent_as_it_is_under_a_generated_id(value: bytes) -> None:
    outgoing = compose(line(value), stamp(unique_ids=True), NOW_MS)
    assert outgoing.value == value
    assert not outgoing.well_formed
    assert outgoing.request_id == "requests-012-ab12"
    assert RequestHeaders.parse(outgoing.headers).schema is None


def test_options_become_headers() -> None:
    outgoing = compose(
        line(b'{"prompt": "hi"}'), stamp(tenant="acme", priority="bulk", deadline_ms=NOW_MS + 30_000), NOW_MS
    )
    parsed = RequestHeaders.parse(outgoing.headers)
    assert (parsed.tenant, parsed.priority, parsed.deadline_ms) == ("acme", "bulk", NOW_MS + 30_000)
    assert parsed.schema == CompletionRequest.schema_ref()
    assert dict(outgoing.headers)["ce_time"] == b"2023-11-14T22:13:20.000+00:00"


def test_unique_ids_rewrite_the_id_and_nothing_else() -> None:
    value = b'{"request_id":  "r-1", "seed": 1e400, "prompt": "\\ud83d"}'
    outgoing = compose(line(value), stamp(unique_ids=True), NOW_MS)
    assert outgoing.value == b'{"request_id":  "r-1-ab12", "seed": 1e400, "prompt": "\\ud83d"}'
    assert outgoing.request_id == "r-1-ab12"


def test_unique_ids_do_not_touch_what_only_looks_like_the_id() -> None:
    body = {"request_id": "r-1", "metadata": {"request_id": "r-1"}, "prompt": 'say "request_id": "r-1"'}
    outgoing = compose(line(json.dumps(body).encode()), stamp(unique_ids=True), NOW_MS)
    assert json.loads(outgoing.value) == {**body, "request_id": "r-1-ab12"}


def test_the_same_id_stays_the_same_within_a_run_and_differs_between_runs() -> None:
    value = b'{"request_id": "r-1", "prompt": "hi"}'
    ids = [compose(line(value), stamp(unique_ids=True, run=run), NOW_MS).request_id for run in ("a", "a", "b")]
    assert ids == ["r-1-a", "r-1-a", "r-1-b"]


def test_a_long_id_keeps_its_run_and_fits() -> None:
    value = json.dumps({"request_id": "r" * 128, "prompt": "hi"}).encode()
    outgoing = compose(line(value), stamp(unique_ids=True), NOW_MS)
    assert len(outgoing.request_id) == 128
    assert outgoing.request_id.endswith("r-ab12")
    assert RequestHeaders.parse(outgoing.headers).request_id == outgoing.request_id


def test_a_record_over_the_hard_limit_is_refused_with_a_typed_error() -> None:
    for one in (Line(3, 40_000_000, None), line(b'"' + b"x" * (hard_limit() - 100) + b'"', 3)):
        with pytest.raises(LimitExceeded) as caught:
            compose(one, stamp(), NOW_MS)
        assert (caught.value.field, caught.value.limit) == ("line 3", 16_777_216)
        assert caught.value.code == "record_too_large"


def test_a_record_just_under_the_hard_limit_is_composed() -> None:
    assert len(compose(line(b"x" * (hard_limit() - 2_000)), stamp(), NOW_MS).value) == hard_limit() - 2_000
