"""`penstock.contracts.delays`: what is appended is read back, cut off, and never taken from anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts import delays
from penstock.contracts.delays import Delayed, original
from penstock.contracts.events import Source
from penstock.contracts.headers import RequestHeaders

KNOWN = Delayed(3, 1_700_000_000_000, Source(topic="p.llm.screened", partition=4, offset=17), "rate_limited")
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=50)), max_size=6)
KNOWNS = st.builds(
    Delayed,
    st.integers(1, 1_000_000),
    st.integers(0, 10**17),
    st.builds(
        Source,
        topic=st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True),
        partition=st.integers(0, 10**6),
        offset=st.integers(0, 10**17),
    ),
    st.text(max_size=100),
)


@given(HEADERS, KNOWNS)
def test_is_read_back_and_cut_off_whatever_was_there(headers: list[tuple[str, bytes | None]], known: Delayed) -> None:
    written = [*headers, *known.headers()]
    read = Delayed.of(written)
    assert read is not None
    assert (read.attempts, read.not_before_ms, read.retry_of) == (known.attempts, known.not_before_ms, known.retry_of)
    assert original(written) == headers
    framing = 16 * len(known.headers())
    assert sum(len(name) + len(value or b"") for name, value in known.headers()) + framing <= delays.MAX_BYTES


def test_a_stable_code_comes_back_as_it_was() -> None:
    assert Delayed.of(KNOWN.headers()) == KNOWN


def test_the_attempt_appended_is_the_one_that_counts() -> None:
    headers = [("attempt", b"0"), ("tenant", b"acme"), *KNOWN.headers()]
    assert RequestHeaders.parse(headers).attempt == KNOWN.attempts


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"x/y/z", b"\n"])
def test_what_is_not_whole_is_no_delay(place: int, value: bytes | None) -> None:
    headers = KNOWN.headers()
    headers[place] = (headers[place][0], value)
    if place == 3 and value == b"x/y/z":
        return  # a code has no other form than being printable
    assert Delayed.of(headers) is None
    assert original(headers) == headers


def test_headers_in_another_order_or_place_are_someone_elses() -> None:
    assert Delayed.of([*KNOWN.headers(), ("more", b"x")]) is None
    assert Delayed.of(KNOWN.headers()[::-1]) is None
    assert Delayed.of(KNOWN.headers()[1:]) is None
    assert Delayed.of([]) is None
