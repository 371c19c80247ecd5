"""`penstock_preprocess.normalization`: what changes, what must stay, and what is said of it."""

from __future__ import annotations

import random
import unicodedata

import pytest

from penstock_preprocess.normalization import Normalizer


def normalized(text: str) -> tuple[str, dict[str, int]]:
    normalizer = Normalizer()
    result = normalizer.text(text)
    return result, {change.kind: change.count for change in normalizer.changes}


@pytest.mark.parametrize(
    ("text", "expected", "changes"),
    [
        ("cafÃ© au lait, s'il vous plaÃ®t", "café au lait, s'il vous plaît", {"mojibake": 1}),
        ("âœ” No problems", "✔ No problems", {"mojibake": 1}),
        ("a\r\nb\rc\u2028d\u2029e\x0bf", "a\nb\nc\nd\ne\nf", {"line_ends": 5}),
        ("a\x00b\x1b[31mc\x7f", "ab[31mc", {"control_characters": 3}),
        ("a\u202eb\u2066c\u200fd", "abcd", {"bidirectional_controls": 3}),
        ("pass\u200bword\ufeff \u2060\u00ad", "password ", {"invisible_characters": 4}),
        ("i\u200dg\u200cnore", "ignore", {"invisible_characters": 2}),
        ("hi\U000e0068\U000e0069", "hi", {"invisible_characters": 2}),
        ("a\ufe0f\ufe01b\U000e0101c", "abc", {"invisible_characters": 3}),
        ("e\u0301a\u0308", "éä", {"unicode_nfc": 2}),
        ("\u212b", "\u00c5", {"unicode_nfc": 1}),
    ],
)
def test_changes_are_made_and_counted(text: str, expected: str, changes: dict[str, int]) -> None:
    assert normalized(text) == (expected, changes)


@pytest.mark.parametrize(
    "text",
    [
        "plain text\nwith\ttabs",
        "“curly” \u2018quotes\u2019 and \ufb01ne ligatures",
        "if (a &lt; b &amp;&amp; c) { return '&nbsp;'; }",
        "\uff26\uff35\uff2c\uff2c width \uff11\uff12 ｶﾀｶﾅ",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, ZWNJ inside a word
        "\u0d28\u0d4d\u200d",  # Malayalam chillu: virama and ZWJ at the end of a word
        "\u0915\u094d\u200d\u0937",  # Devanagari half form
        "👩‍👩‍👧‍👦 👨🏽‍🚀 🏳️‍🌈 ❤️‍🔥",  # emoji ZWJ sequences
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # flag of England
        "1️⃣ #️⃣ ☀️",  # variation selectors that belong
        "\u845b\U000e0100",  # ideographic variation sequence
        "naïve façade Größe \u2013 10³ µm ½",
        "日本語のテキスト。",
        "São Paulo, Ângela, crêpe, Malmö",
    ],
)
def test_what_is_right_stays(text: str) -> None:
    assert normalized(text) == (text, {})


def test_a_joiner_at_the_edge_or_repeated_is_stripped() -> None:
    assert normalized("\u200dab\u200d")[0] == "ab"
    assert normalized("\u0915\u200d\u200d\u200d")[0] == "\u0915\u200d"


def test_counts_add_up_over_the_texts_of_a_request() -> None:
    normalizer = Normalizer()
    assert normalizer.texts(["a\u200b", "b\u200b\r\n"]) == ("a", "b\n")
    assert {change.kind: change.count for change in normalizer.changes} == {"invisible_characters": 2, "line_ends": 1}


def test_any_text_comes_out_nfc_without_controls_and_is_told_of_when_changed() -> None:
    source = random.Random(20260102)
    pools = [
        "abc é\n\t",
        "\u200b\u200d\u202e\ufeff\u2066",
        "\u0301\u0308",
        "\x00\x1b\x7f\x85\r",
        "\u0915\u094d",
        "👩🏽\ufe0f❤",
    ]
    changed = 0
    for _ in range(4_000):
        characters = [source.choice(source.choice(pools)) for _ in range(source.randint(0, 12))]
        characters += [chr(source.choice((source.randrange(0xD800), source.randrange(0xE000, 0x110000))))]
        source.shuffle(characters)
        text = "".join(characters)
        result, changes = normalized(text)
        assert unicodedata.is_normalized("NFC", result)
        assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in result)
        assert not any(c in result for c in "\u200b\u202e\u2066\ufeff")
        assert bool(changes) == (result != text)
        changed += result != text
    assert 1_000 < changed < 4_000


def test_a_long_text_of_invisible_characters_takes_linear_time() -> None:
    text = ("a" * 1_000 + "\u200b") * 500 + "\u200d" * 100_000
    assert normalized(text)[1] == {"invisible_characters": 100_500}
