"""`penstock.text.placeholders`."""

from __future__ import annotations

import pytest

from penstock.text.placeholders import PLACEHOLDER, restore, write


def test_restores_every_place_and_counts_them() -> None:
    text, count = restore("<PERSON_1> and <PERSON_2>, again <PERSON_1>", {"<PERSON_1>": "Ada", "<PERSON_2>": "Bob"})
    assert (text, count) == ("Ada and Bob, again Ada", 3)


def test_unknown_placeholders_stay() -> None:
    assert restore("<PERSON_9> <b>", {"<PERSON_1>": "Ada"}) == ("<PERSON_9> <b>", 0)


def test_a_restored_value_is_not_read_again() -> None:
    entities = {"<LITERAL_1>": "<PERSON_1>", "<PERSON_1>": "Ada"}
    assert restore("<LITERAL_1> <PERSON_1>", entities) == ("<PERSON_1> Ada", 2)


def test_text_around_a_placeholder_cannot_swallow_it() -> None:
    assert restore("<PERSON_<PERSON_1>>", {"<PERSON_1>": "Ada"}) == ("<PERSON_Ada>", 1)


def test_a_restored_value_is_not_a_template() -> None:
    assert restore("<A_1>", {"<A_1>": r"\g<0> \1"}) == (r"\g<0> \1", 1)


@pytest.mark.parametrize("text", ["<PERSON_0>", "<PERSON_01>", "<person_1>", "<_1>", "< PERSON_1>", "<PERSON_>"])
def test_other_forms_are_no_placeholders(text: str) -> None:
    assert PLACEHOLDER.search(text) is None


def test_what_is_written_is_found() -> None:
    match = PLACEHOLDER.fullmatch(write("US_SSN", 12))
    assert match is not None
    assert match.groups() == ("US_SSN", "12")
