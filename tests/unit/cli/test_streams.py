"""Following a stream: each piece once, in order, and whether all of it came; and how it looks."""

from __future__ import annotations

import hashlib

import pytest

from penstock.cli.records import Line, Stamp, compose
from penstock.cli.render import Telling, out
from penstock.cli.streams import Follow
from penstock.contracts.streams import StreamState, TokensRestored


def piece(
    sequence: int, text: str, *, request_id: str = "r", state: StreamState | None = None, of: str = ""
) -> TokensRestored:
    if state is None:
        return TokensRestored(request_id=request_id, sequence=sequence, text=text)
    return TokensRestored(
        request_id=request_id,
        sequence=sequence,
        text=text,
        final=True,
        state=state,
        characters=len(of),
        sha256=hashlib.sha256(of.encode()).hexdigest(),
    )


def test_repeats_are_dropped_and_the_end_says_whether_all_came() -> None:
    follow = Follow()
    pieces = [piece(0, "a"), piece(1, "ö"), piece(0, "a"), piece(1, "ö"), piece(2, "c", state="completed", of="aöc")]
    assert [follow.take(one) for one in pieces] == [True, True, False, False, True]
    assert (follow.ended, follow.whole) == (True, True)
    assert not follow.take(piece(3, "d"))


def test_a_gap_ends_what_is_shown_and_another_text_is_not_whole() -> None:
    follow = Follow()
    assert follow.take(piece(0, "a"))
    assert not follow.take(piece(2, "c"))
    assert (follow.ended, follow.whole) == (True, False)
    follow = Follow()
    assert follow.take(piece(0, "a", state="completed", of="b"))
    assert (follow.ended, follow.whole) == (True, False)


def test_streams_that_come_in_turns_each_say_whose_they_are() -> None:
    telling = Telling()
    with out.capture() as shown:
        telling.tell(piece(0, "One "))
        telling.tell(piece(1, "two [bold]\x1b.\nThree"))
        telling.tell(piece(0, "Other", request_id="s"))
        telling.tell(piece(0, "Second", request_id="s").having(index=1))
        telling.tell(piece(2, "", state="blocked"))
        telling.interrupt()
    assert shown.get() == "r: One two [bold]\\u001b.\nThree\ns: Other\ns (2): Second\nr:  [blocked]\n"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b' {"prompt": "{}"}', b' {"stream": true, "prompt": "{}"}'),
        (b'{"prompt": "a", "stream": false}', b'{"prompt": "a", "stream": false}'),
        (b"{}", b"{}"),
        (b"[{}]", b"[{}]"),
    ],
)
def test_a_request_is_asked_to_be_streamed_where_it_does_not_say(given: bytes, sent: bytes) -> None:
    assert compose(Line(1, len(given), given), Stamp("f", "run", stream=True), 0).value == sent
    assert compose(Line(1, len(given), given), Stamp("f", "run"), 0).value == given
