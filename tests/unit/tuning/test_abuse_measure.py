"""The figures of the abusive-language classifier: threshold, AUC, and what counts as a text's score."""

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_safety.features import FeatureSettings
from penstock_tuning.abuse.measure import auc, report, text_scores, threshold_at
from penstock_tuning.abuse.split import Split

SETTINGS = FeatureSettings()


def bad_words(texts: list[str]) -> NDArray[np.float64]:
    return np.array([0.9 if "bad" in text else 0.2 if "odd" in text else 0.1 for text in texts])


def test_the_threshold_lets_at_most_the_rate_through_over_all_sources() -> None:
    scores = [np.arange(60) / 100, np.arange(60, 100) / 100]
    threshold = threshold_at(scores, 0.05)
    pooled = np.concatenate(scores)
    assert (pooled >= threshold).sum() == 5
    assert threshold_at(scores, 0.0) > 0.99


def test_tied_scores_at_the_threshold_do_not_exceed_the_rate() -> None:
    scores = [np.array([0.9] * 10 + [0.1] * 90)]
    assert (scores[0] >= threshold_at(scores, 0.05)).mean() <= 0.05


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        ([3, 4], [1, 2], 1.0),
        ([1, 2], [3, 4], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([1, 3], [2], 0.5),
        ([2, 2, 3], [1, 2], 0.8333),
    ],
)
def test_auc_is_the_share_of_ordered_pairs(positives: list[float], negatives: list[float], expected: float) -> None:
    assert auc(np.array(positives, dtype=float), np.array(negatives, dtype=float)) == expected


def test_a_text_counts_by_its_worst_segment() -> None:
    long = "All is well here today. " * 20 + "this is bad. " + "All is well here today. " * 20
    assert text_scores([long, "fine", ""], bad_words, SETTINGS).tolist() == [0.9, 0.1, 0.0]


def test_the_report_keeps_sources_apart_and_says_over_defence() -> None:
    split = Split(
        valid_benign={"v": ["fine", "odd"]},
        report_benign={"r": ["fine", "bad luck", "odd", "ok"]},
        report_toxic={"mixed": [("bad", 1), ("odd", 1), ("bad but fine", 0), ("ok", 0)], "positives": [("bad", 1)]},
    )
    figures = report(split, bad_words, SETTINGS, 0.5)
    assert figures["valid_false_positive_rate"] == {"v": 0.0}
    assert figures["report_false_positive_rate"] == {"r": 0.25}
    assert figures["held_out"]["mixed"]["recall"] == 0.5
    assert figures["held_out"]["mixed"]["over_defence"] == 0.5
    assert "over_defence" not in figures["held_out"]["positives"]
