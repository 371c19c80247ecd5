"""The featurizer is part of the model: what it gives for a text must never drift."""

import numpy as np
import pytest

from penstock_safety.features import PAD_ID, FeatureSettings, ngram_ids, normalize, pad, segments

SETTINGS = FeatureSettings(buckets=4096)
# fmt: off
EXPECTED = [
    71688, 75866, 87656, 125118, 188099, 242391, 275921, 280767, 299825, 315824, 333569, 357034, 395003,
    417601, 419968, 464526, 589566, 608902, 652677, 654296, 874788, 874851, 935456, 938179, 953871,
    958036, 975370, 989045,
]
# fmt: on


def test_ids_of_a_known_text_are_those_the_shipped_model_was_trained_with() -> None:
    ids = ngram_ids("Hi, you!", FeatureSettings())
    assert ids.tolist() == EXPECTED


def test_ids_stay_in_range_and_never_are_padding() -> None:
    ids = ngram_ids("The quick brown fox jumps over the lazy dog. " * 20, SETTINGS)
    assert ids.min() > PAD_ID
    assert ids.max() < SETTINGS.buckets
    assert len(set(ids.tolist())) == len(ids)


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("YOU ARE AN IDIÓT", "you are an idiot"),
        ("you are soooooo bad", "you are soo bad"),
        ("i d i o t", "idiot"),
        ("id\u200biot", "idiot"),
        ("@someone idiot https://example.org/x", "idiot"),
        ("\uff49\uff44\uff49\uff4f\uff54", "idiot"),
    ],
)
def test_disguises_give_the_same_ids(disguised: str, plain: str) -> None:
    assert normalize(disguised) == normalize(plain)
    assert np.array_equal(ngram_ids(disguised, SETTINGS), ngram_ids(plain, SETTINGS))


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u200b"])
def test_blank_text_has_no_ids(blank: str) -> None:
    assert len(ngram_ids(blank, SETTINGS)) == 0


@pytest.mark.parametrize("text", ["a", "\ud800", "é", "😀", "\U0001d552\U0001d553"])
def test_short_and_odd_text_is_taken(text: str) -> None:
    assert len(ngram_ids(text, SETTINGS)) > 0


def test_pad_keeps_rows_and_fills_with_the_padding_id() -> None:
    matrix = pad([np.array([5, 6], dtype=np.int64), np.array([], dtype=np.int64)])
    assert matrix.tolist() == [[5, 6], [PAD_ID, PAD_ID]]
    assert pad([]).shape == (0, 1)


def test_segments_cover_all_text_in_order_and_keep_to_the_limit() -> None:
    text = "One sentence. Another one! " * 30 + "x" * 700 + "\nlast line"
    found = segments(text, SETTINGS)
    covered: set[int] = set()
    for start, end in found:
        assert 0 < end - start <= SETTINGS.segment_chars
        covered.update(range(start, end))
    assert covered == set(range(len(text)))
    assert [start for start, _ in found] == sorted(start for start, _ in found)


def test_a_phrase_at_the_cut_of_a_long_sentence_is_whole_in_one_segment() -> None:
    for offset in range(120, 260):
        text = "a" * offset + " needle in here " + "b" * 300
        assert any("needle in here" in text[start:end] for start, end in segments(text, SETTINGS)), offset
