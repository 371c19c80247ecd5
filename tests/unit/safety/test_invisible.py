# ruff: noqa: RUF001  # other scripts are what is tested
"""Invisible characters that carry something, and those a script or an emoji needs."""

import pytest

from penstock_safety.rules.invisible import InvisibleText

DETECTOR = InvisibleText()


@pytest.mark.parametrize(
    "text",
    [
        "hello" + "".join(chr(0xE0000 + ord(c)) for c in "ignore"),
        "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all") + "\U000e007f",
        "user\u202egnp.exe",
        "a\u2066b\u2069",
        "in\u200bvisible",
        "word\u200b\u200c\u200b\u200c\u200b word",
        "x\ufe00\ufe01\ufe02\ufe03",
    ],
)
def test_hidden_characters_are_found(text: str) -> None:
    assert DETECTOR.detect([text])[0]


@pytest.mark.parametrize(
    "text",
    [
        "plain text",
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "England \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "heart \u2764\ufe0f",
        "नमस्\u200dते",
        "می\u200cخواهم",
        "naïve café",
    ],
)
def test_needed_joiners_are_left_alone(text: str) -> None:
    assert DETECTOR.detect([text]) == [[]]
