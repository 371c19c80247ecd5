"""Placeholders inside JSON values."""

from __future__ import annotations

from penstock_postprocess.restoring import restore_value

ENTITIES = {"<PERSON_1>": 'Anna "Ann" O\\Hara', "<EMAIL_ADDRESS_1>": "anna@example.org"}


def test_strings_and_keys_at_every_level_are_restored_and_counted() -> None:
    value = {
        "name": "<PERSON_1>",
        "mail": ["<EMAIL_ADDRESS_1>", {"to": "Dear <PERSON_1>, <PERSON_2>"}],
        "<PERSON_1>": 1,
        "n": [1, 2.5, None, True],
    }
    restored, count = restore_value(value, ENTITIES)
    assert restored == {
        "name": 'Anna "Ann" O\\Hara',
        "mail": ["anna@example.org", {"to": 'Dear Anna "Ann" O\\Hara, <PERSON_2>'}],
        'Anna "Ann" O\\Hara': 1,
        "n": [1, 2.5, None, True],
    }
    assert count == 4


def test_nothing_to_restore() -> None:
    assert restore_value({"a": ["b"]}, {}) == ({"a": ["b"]}, 0)
