"""Figures with known answers, weights that count as repeated rows, and intervals that hold what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from penstock.heads.spans import Span
from penstock_tuning.evaluate import metrics
from penstock_tuning.evaluate.bootstrap import draw, estimate
from penstock_tuning.evaluate.metrics import Statistic

ONES = np.ones(6)
POSITIVE = np.array([True, True, True, False, False, False])


def test_the_area_counts_ties_half_and_leaves_out_what_is_neither() -> None:
    def area(scores: list[float], positive: list[int], negative: list[int]) -> float:
        up, down = (np.array(which, np.bool_) for which in (positive, negative))
        return metrics.area(scores, up, down)(np.ones(len(scores)))

    assert area([0.4, 0.3, 0.2, 0.1], [1, 1, 0, 0], [0, 0, 1, 1]) == 1.0
    assert area([0.1, 0.2, 0.3, 0.4], [1, 1, 0, 0], [0, 0, 1, 1]) == 0.0
    assert area([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], [0, 0, 1, 1]) == 0.5
    assert area([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], [0, 0, 1, 1]) == 0.875
    assert area([0.4, 0.3, 9.0, 0.2, 0.1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]) == 1.0
    assert math.isnan(area([0.4, 0.3], [1, 1], [0, 0]))
    assert math.isnan(area([], [], []))


def test_recall_is_read_at_the_lowest_threshold_that_flags_few_enough() -> None:
    negative = np.arange(1000) >= 500
    scores = np.where(negative, np.arange(1000) - 500, 0.0)
    scores[:500] = np.arange(500) + 0.5
    recall = metrics.recall_at(scores, ~negative, negative, 0.01)
    # Five of 500 may be flagged, 495 to 499: found is what lies above 494.
    assert recall(np.ones(1000)) == pytest.approx(6 / 500)
    assert metrics.recall_at(scores, ~negative, negative, 1.0)(np.ones(1000)) == 1.0
    assert metrics.recall_at(scores, ~negative, negative, 0.0)(np.ones(1000)) == pytest.approx(1 / 500)


def test_tied_negatives_are_flagged_together_or_not_at_all() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    positive = np.array([True, True, False, False, False])
    assert metrics.recall_at(scores, positive, ~positive, 0.5)(np.ones(5)) == 0.5
    assert metrics.recall_at(scores, positive, ~positive, 0.7)(np.ones(5)) == 1.0


def test_shares_accuracy_and_means() -> None:
    said = np.array([True, True, False, True, False, False])
    assert metrics.share(said, POSITIVE)(ONES) == pytest.approx(2 / 3)
    assert metrics.balanced_accuracy(said, POSITIVE, ~POSITIVE)(ONES) == pytest.approx(2 / 3)
    assert metrics.balanced_accuracy(np.ones(6, np.bool_), POSITIVE, ~POSITIVE)(ONES) == 0.5
    assert metrics.mean([lambda _: 0.2, lambda _: 0.4])(ONES) == pytest.approx(0.3)
    assert math.isnan(metrics.mean([])(ONES))
    assert math.isnan(metrics.share(said, np.zeros(6, np.bool_))(ONES))


def test_rank_correlation_is_spearmans() -> None:
    every = np.ones(5, np.bool_)

    def correlation(one: list[float], other: list[float]) -> float:
        return metrics.rank_correlation(one, other, every)(np.ones(5))

    assert correlation([1, 2, 3, 4, 5], [10, 20, 30, 40, 500]) == pytest.approx(1)
    assert correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]) == pytest.approx(-1)
    # Ranks 1..5 with 2, 1, 4, 3, 5: 1 - 6 * 4 / (5 * 24).
    assert correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    # Ranks 1, 2.5, 2.5, 4, 5 with 1..5: Pearson's of the ranks.
    wanted = np.corrcoef([1, 2.5, 2.5, 4, 5], [1, 2, 3, 4, 5])[0, 1]
    assert correlation([1, 2, 2, 3, 4], [1, 2, 3, 4, 5]) == pytest.approx(wanted)
    assert math.isnan(correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]))


def test_spans_must_be_exact() -> None:
    wanted = [Span(0, 4, "PERSON"), Span(10, 14, "PERSON"), Span(20, 24, "LOCATION")]
    found = [Span(0, 4, "PERSON"), Span(10, 13, "PERSON"), Span(30, 31, "PERSON"), Span(20, 24, "PERSON")]
    assert metrics.span_counts(found, wanted, "PERSON") == (1, 4, 2)
    assert metrics.span_counts(found, wanted, "LOCATION") == (0, 0, 1)
    assert metrics.f1([1, 0], [4, 0], [2, 1])(np.ones(2)) == pytest.approx(2 / 7)
    assert math.isnan(metrics.f1([0], [0], [0])(np.ones(1)))


def test_a_weight_counts_as_so_many_rows() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, 40).astype(float)
    labels = random.random(40) < 0.4
    weights = random.integers(0, 4, 40)
    often = np.repeat(np.arange(40), weights)

    def made(rows: np.ndarray) -> list[Statistic]:
        own, positive = scores[rows], labels[rows]
        every = np.ones(len(rows), np.bool_)
        return [
            metrics.area(own, positive, ~positive),
            metrics.recall_at(own, positive, ~positive, 0.2),
            metrics.balanced_accuracy(own > 2, positive, ~positive),
            metrics.rank_correlation(own, positive.astype(float), every),
            metrics.f1(positive * (own > 2), own > 2, positive),
        ]

    for weighted, repeated in zip(made(np.arange(40)), made(often), strict=True):
        assert weighted(weights.astype(float)) == pytest.approx(repeated(np.ones(len(often))))


def test_rows_of_a_cluster_are_drawn_together_within_their_source() -> None:
    strata = ["a"] * 6 + ["b"] * 4
    clusters = ["x", "x", "y", "y", "", "", "x", "x", "x", ""]
    drawn = draw(strata, clusters, 200, 1).weights
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 2] == drawn[:, 3]).all()
    assert (drawn[:, 4] != drawn[:, 5]).any()
    assert (drawn[:, 0] != drawn[:, 6]).any(), "a key of another source is another cluster"
    assert (drawn[:, 0] + drawn[:, 2] + drawn[:, 4] + drawn[:, 5] == 4).all(), "as many clusters as there are"
    assert (draw(strata, clusters, 200, 1).weights == drawn).all()
    assert (draw(strata, clusters, 200, 2).weights != drawn).any()


def test_an_interval_holds_the_share_that_it_promises() -> None:
    random = np.random.default_rng(3)
    held = 0
    for trial in range(200):
        hits = random.random(150) < 0.3
        every = np.ones(150, np.bool_)
        draws = draw(["s"] * 150, [""] * 150, 200, trial)
        values, _ = estimate({"one": metrics.share(hits, every)}, draws)
        held += values["one"].low <= 0.3 <= values["one"].high
    assert 0.90 <= held / 200 <= 0.98


def test_a_gain_has_the_interval_of_paired_draws() -> None:
    random = np.random.default_rng(4)
    hard = random.random(400)
    one, other = hard < 0.60, hard < 0.55
    every = np.ones(400, np.bool_)
    draws = draw(["s"] * 400, [""] * 400, 400, 1)
    values, gains = estimate({"one": metrics.share(one, every), "other": metrics.share(other, every)}, draws, "one")
    gain = gains["other"]
    assert gain.value == pytest.approx(values["one"].value - values["other"].value)
    assert 0 < gain.low < gain.value < gain.high
    assert gain.high - gain.low < values["one"].high - values["one"].low, "the same rows are hard for both"
    assert values["one"].low < values["other"].high, "apart their intervals overlap"
    assert estimate({"one": metrics.share(one, every)}, draws, "absent")[1] == {}
