"""Offsets lead to the original text, in code points, whatever the text is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from penstock_tuning.encoder.tokenizer import SPECIAL, load_tokenizer, save_tokenizer, starts_word, train_tokenizer

TEXTS = [
    "Frau Müller wohnt in der Königsstraße 12, 10115 Berlin.",
    "L'élève a reçu 45 € à l'hôtel; où êtes-vous né ?",
    "La niña vive en Málaga. ¿Cuándo nació?",
    "La città è più bella. O coração não dói.",
    "def total(rows):\n    return sum(row['price'] for row in rows)\n",
    "the history of the house and the garden of the house",
] * 4
TOKENIZER = train_tokenizer(TEXTS, 420)


def tokens(text: str, tokenizer: Tokenizer = TOKENIZER) -> list[tuple[str, tuple[int, int]]]:
    encoded = tokenizer.encode(text)
    return list(zip(encoded.tokens, encoded.offsets, strict=True))


@pytest.mark.parametrize("text", TEXTS[:6])
def test_offsets_are_places_in_the_text(text: str) -> None:
    covered = set()
    for token, (start, end) in tokens(text)[1:-1]:
        assert 0 <= start <= end <= len(text), token
        covered.update(range(start, end))
    assert {place for place, character in enumerate(text) if not character.isspace()} <= covered


def test_a_span_of_tokens_is_the_words_it_covers() -> None:
    text = "wohnt in Königsstraße 12 🙂 und in Málaga"
    encoded = TOKENIZER.encode(text)
    for word in ("Königsstraße", "12", "🙂", "Málaga"):
        start = text.index(word)
        inside = [(a, b) for a, b in encoded.offsets[1:-1] if a < start + len(word) and b > start]
        assert (min(a for a, _ in inside), max(b for _, b in inside)) == (start, start + len(word))


@given(st.text(max_size=60))
def test_any_text_is_tokenized_without_unknowns_and_comes_back(text: str) -> None:
    encoded = TOKENIZER.encode(text, add_special_tokens=False)
    assert SPECIAL.index("[UNK]") not in encoded.ids
    assert TOKENIZER.decode(encoded.ids, skip_special_tokens=False) == text
    assert all(0 <= start <= end <= len(text) for start, end in encoded.offsets)


def test_digits_stand_alone_and_texts_are_framed() -> None:
    assert [token for token, _ in tokens("10115")] == ["[CLS]", "1", "0", "1", "1", "5", "[SEP]"]
    pair = TOKENIZER.encode("1", "2")
    assert pair.tokens == ["[CLS]", "1", "[SEP]", "2", "[SEP]"]


def test_a_word_begins_at_its_first_token() -> None:
    begins = starts_word(TOKENIZER)
    ids = TOKENIZER.encode(" of the Königxyz (12)", add_special_tokens=False).ids
    shown = [TOKENIZER.decode([number]) for number in ids]
    assert shown[0].startswith(" ")
    firsts = [text for text, number in zip(shown, ids, strict=True) if begins[number]]
    assert all(text[0] in " (12)" for text in firsts)
    assert len(firsts) < len(ids)
    umlaut = TOKENIZER.encode("xÄ", add_special_tokens=False).ids
    assert not begins[umlaut].any()
    assert begins[: len(SPECIAL)].all()


def test_the_same_texts_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_tokenizer(train_tokenizer(TEXTS, 420), tmp_path / name, 512)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert set(files) == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    text = TEXTS[0]
    loaded = load_tokenizer(tmp_path / "a")
    assert loaded.encode(text).offsets == TOKENIZER.encode(text).offsets
    ids = loaded.encode("a [SEP] [MASK] b").ids
    assert [number for number in ids if number < len(SPECIAL)] == [SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")]
