"""Text out of tokens: characters, placeholders and stop strings stay whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock_inference.text import Detokenizer, TextStream


def _bytes(ids: Sequence[int]) -> str:
    """A vocabulary of single bytes, decoded as a byte-level BPE does."""
    return bytes(ids).decode("utf-8", "replace")


def _byte_fallback(ids: Sequence[int]) -> str:
    """As a SentencePiece vocabulary: an invalid run of bytes becomes one replacement for each byte."""
    try:
        return bytes(ids).decode()
    except UnicodeDecodeError as error:
        return bytes(ids[: error.start]).decode() + "\ufffd" * (len(ids) - error.start)


def _stream(text: str, stop: Sequence[str] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(_bytes, stop)
    pieces = []
    for token in text.encode():
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], stream


@pytest.mark.parametrize("decode", [_bytes, _byte_fallback])
def test_characters_are_never_split(decode: object) -> None:
    assert callable(decode)
    text = "aé€😀日本z"
    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.push(token) for token in text.encode()]
    assert "".join(pieces) == text
    assert [piece for piece in pieces if piece] == list(text)


def test_an_unfinished_character_at_the_end_is_dropped() -> None:
    stream = TextStream(_bytes, ())
    out = "".join(stream.push(token) for token in "ab😀".encode()[:-1]) + stream.finish()
    assert out == "ab"


def test_invalid_bytes_in_the_middle_are_replaced_and_lose_nothing_after_them() -> None:
    stream = TextStream(_bytes, ())
    out = "".join(stream.push(token) for token in b"a\xffb\xe2\x82c\xe2\x82\xac!") + stream.finish()
    assert out == "a\ufffdb\ufffdc\u20ac!"


def test_spaces_that_a_vocabulary_drops_at_the_beginning_of_a_text() -> None:
    words = ["\u2581Hello", "\u2581big", "\u2581world", "s"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[each] for each in ids).replace("\u2581", " ").removeprefix(" ")

    detokenizer = Detokenizer(decode)
    assert [detokenizer.push(token) for token in range(4)] == ["Hello", " big", " world", "s"]


def test_a_placeholder_comes_whole() -> None:
    pieces, _ = _stream("To <EMAIL_ADDRESS_12>, x<3 and <b>.")
    assert "".join(pieces) == "To <EMAIL_ADDRESS_12>, x<3 and <b>."
    assert "<EMAIL_ADDRESS_12>" in pieces
    assert not any(piece.startswith("<E") and not piece.endswith(">") for piece in pieces)


def test_what_looks_like_a_placeholder_for_ever_is_released_in_the_end() -> None:
    pieces, _ = _stream("<" + "A" * 200)
    assert "".join(pieces) == "<" + "A" * 200
    assert max(len(piece) for piece in pieces[:-1]) <= 66


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one END two", ["END"], "one "),
        ("one ENEND two", ["END"], "one EN"),
        ("aabaabaac", ["aabaac"], "aab"),
        ("one\n\ntwo", ["\n\n"], "one"),
        ("a😀b", ["😀"], "a"),
        ("x y z", ["z", "y"], "x "),
        ("END", ["END"], ""),
        ("<PERSON_1> said", ["_1>"], "<PERSON"),
    ],
)
def test_text_is_cut_at_the_first_stop_string(text: str, stop: list[str], expected: str) -> None:
    pieces, stream = _stream(text, stop)
    assert "".join(pieces) == expected
    assert stream.stopped


def test_no_piece_holds_the_beginning_of_a_stop_string_that_follows() -> None:
    pieces, _ = _stream("one EN, two EN", ["END"])
    assert "".join(pieces) == "one EN, two EN"
    assert pieces[-1] == "EN"
    assert "E" not in "".join(pieces[:5])


def test_after_a_stop_nothing_follows() -> None:
    stream = TextStream(_bytes, ["."])
    for token in b"a.":
        stream.push(token)
    assert stream.push(ord("b")) == ""
    assert stream.finish() == ""
