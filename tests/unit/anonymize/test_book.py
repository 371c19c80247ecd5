"""`penstock_anonymize.book` and `replacement`: stable numbers, literals, known texts."""

from __future__ import annotations

import pytest

from penstock.contracts.errors import LimitExceeded
from penstock_anonymize.book import PlaceholderBook
from penstock_anonymize.replacement import PIECE_SPANS, Replacer
from penstock_anonymize.scanners import Span

TYPES = ("EMAIL_ADDRESS", "PHONE_NUMBER")


def book(entities: dict[str, str] | None = None, most: int = 100) -> PlaceholderBook:
    return PlaceholderBook(entities or {}, TYPES, most)


def test_numbers_follow_the_first_appearance_by_type() -> None:
    one = book()
    names = [one.placeholder("EMAIL_ADDRESS", "a@x.org"), one.placeholder("PHONE_NUMBER", "12")]
    names += [one.placeholder("EMAIL_ADDRESS", "b@x.org"), one.placeholder("EMAIL_ADDRESS", "a@x.org")]
    assert names == ["<EMAIL_ADDRESS_1>", "<PHONE_NUMBER_1>", "<EMAIL_ADDRESS_2>", "<EMAIL_ADDRESS_1>"]


def test_addresses_are_the_same_whatever_their_case_and_others_are_not() -> None:
    one = book()
    assert one.placeholder("EMAIL_ADDRESS", "Ada@X.org") == one.placeholder("EMAIL_ADDRESS", "ada@x.org")
    assert one.placeholder("PHONE_NUMBER", "ab") != one.placeholder("PHONE_NUMBER", "AB")
    assert one.entities["<EMAIL_ADDRESS_1>"] == "Ada@X.org"


def test_a_known_conversation_goes_on() -> None:
    one = book({"<EMAIL_ADDRESS_3>": "a@x.org", "<PHONE_NUMBER_1>": "12"})
    assert one.placeholder("EMAIL_ADDRESS", "A@x.org") == "<EMAIL_ADDRESS_3>"
    assert not one.grown
    assert one.placeholder("EMAIL_ADDRESS", "b@x.org") == "<EMAIL_ADDRESS_4>"
    assert one.grown
    assert one.used == {"<EMAIL_ADDRESS_3>": "a@x.org", "<EMAIL_ADDRESS_4>": "b@x.org"}
    assert set(one.entities) == {"<EMAIL_ADDRESS_3>", "<EMAIL_ADDRESS_4>", "<PHONE_NUMBER_1>"}


def test_what_looks_like_a_placeholder_of_ours_is_a_literal() -> None:
    text = "<EMAIL_ADDRESS_1> <LITERAL_2> <STEP_1> <b> <PHONE_NUMBER_07>"
    assert [text[s.start : s.end] for s in book().literals(text)] == ["<EMAIL_ADDRESS_1>", "<LITERAL_2>"]


def test_known_texts_are_found_again_as_words_of_their_own() -> None:
    one = book({"<PHONE_NUMBER_1>": "1234567", "<PHONE_NUMBER_2>": "42"})
    text = "1234567 x1234567 12345678 (1234567) 42"
    assert one.known(text, [Span(0, 7, "PHONE_NUMBER", 1.0)]) == [Span(27, 34, "PHONE_NUMBER", 1.0)]


def test_a_full_book_refuses() -> None:
    one = book(most=1)
    one.placeholder("PHONE_NUMBER", "1")
    one.placeholder("PHONE_NUMBER", "1")
    with pytest.raises(LimitExceeded) as caught:
        one.placeholder("PHONE_NUMBER", "2")
    assert caught.value.limit == 1


@pytest.mark.parametrize("count", [0, 1, 2, PIECE_SPANS, PIECE_SPANS + 1, 5 * PIECE_SPANS])
def test_every_span_is_replaced_and_the_rest_stays(count: int) -> None:
    one = book(most=1_000)
    text, spans, expected = "start ", [], "start "
    for number in range(count):
        value = f"{number:04}"
        spans.append(Span(len(text), len(text) + 4, "PHONE_NUMBER", 0.4))
        text += value + (" " if number % 2 else "")
        expected += one.placeholder("PHONE_NUMBER", value) + (" " if number % 2 else "")
    assert Replacer().replace(text + "end", spans, one) == expected + "end"
