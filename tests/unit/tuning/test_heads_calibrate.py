"""Probabilities, thresholds, and spans from tokens."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.heads.spans import Span, spans_of
from penstock_tuning.data.example import SAFETY, Example
from penstock_tuning.heads.calibrate import (
    Calibrated,
    Platt,
    auc,
    best_f1,
    by_source,
    fit_platt,
    fit_temperature,
    logit,
    quantile_above,
    sigmoid,
    thresholds,
)
from penstock_tuning.heads.config import load_config
from penstock_tuning.heads.measure import Scores, calibrated_scores, change, limits, similarity, tag_limits

RNG = np.random.default_rng(5)


def test_platts_scaling_finds_what_logits_were_distorted_by() -> None:
    true = RNG.normal(0, 2, 6000)
    labels = (RNG.random(6000) < sigmoid(true)).astype(np.int64)
    platt = fit_platt(true * 2 + 3, labels, np.ones(6000))
    assert platt.scale == pytest.approx(0.5, abs=0.05)
    assert platt.bias == pytest.approx(-1.5, abs=0.15)
    assert (platt.positives, platt.negatives) == (labels.sum(), 6000 - labels.sum())
    probabilities = platt(true * 2 + 3)
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (probabilities >= low) & (probabilities < low + 0.25)
        assert labels[inside].mean() == pytest.approx(probabilities[inside].mean(), abs=0.05)


def test_too_few_texts_change_no_probability() -> None:
    logits = np.array([5.0] * 19 + [-5.0] * 100)
    labels = np.array([0] * 19 + [1] * 100)
    assert fit_platt(logits, labels, np.ones(119)) == Platt(1.0, 0.0, 100, 19)


def test_logits_that_tell_classes_apart_without_error_stay_finite() -> None:
    logits = np.array([20.0] * 50 + [-20.0] * 50)
    platt = fit_platt(logits, np.array([1] * 50 + [0] * 50), np.ones(100))
    assert 0.1 <= platt.scale <= 10
    assert platt(logits)[0] > 0.9
    assert platt(logits)[-1] < 0.1


def test_a_temperature_takes_back_what_was_too_sure() -> None:
    true = RNG.normal(0, 1.5, (4000, 4))
    shares = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    classes = np.array([RNG.choice(4, p=row) for row in shares])
    assert fit_temperature(true * 2.5, classes, np.ones(4000)) == pytest.approx(2.5, rel=0.1)
    assert fit_temperature(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0)) == 1.0


def test_a_threshold_lets_no_more_through_than_allowed() -> None:
    scores = RNG.random(1000)
    for rate in (0.0, 0.001, 0.01, 0.5):
        limit = quantile_above(scores, np.ones(1000), rate)
        assert (scores >= limit).mean() <= rate
        assert (scores >= limit - 0.01).mean() > rate
    assert quantile_above(np.ones(50), np.ones(50), 0.1) < 1
    tied = np.array([0.9] * 20 + [0.1] * 80)
    assert (tied >= quantile_above(tied, np.ones(100), 0.1)).mean() == 0


def test_all_labels_together_flag_no_more_than_allowed() -> None:
    scores = RNG.random((5000, 3))
    weights = np.ones(5000)
    found = thresholds(scores, weights, ("a", "b", "c"), {"a": 4.0}, 0.01)
    at = np.array([found[label] for label in "abc"])
    flagged = (scores >= at).any(1).mean()
    assert 0.007 < flagged <= 0.01
    assert (scores[:, 0] >= at[0]).mean() > 2 * (scores[:, 1] >= at[1]).mean()
    correlated = np.repeat(scores[:, :1], 3, axis=1)
    alike = thresholds(correlated, weights, ("a", "b", "c"), {}, 0.01)
    assert 0.007 < (correlated >= np.array(list(alike.values()))).any(1).mean() <= 0.01


def test_a_large_source_does_not_decide_alone() -> None:
    weights = by_source(["large"] * 100 + ["small"])
    assert weights.mean() == pytest.approx(1)
    assert weights[-1] == pytest.approx(10 * weights[0])


def test_ordinary_texts_decide_the_thresholds() -> None:
    known = {"injection": 0, "jailbreak": 0, "harmful": 0, "toxicity": 0}
    texts = [Example("t", "s", "k", "en", labels=known)] * 1000 + [Example("t", "s", "k", "en")] * 1000
    scores = np.concatenate([RNG.random((1000, len(SAFETY))) / 2, 0.5 + RNG.random((1000, len(SAFETY))) / 2])
    recipe = load_config("cpu").calibration
    flag, block = limits(scores, texts, recipe)
    assert all(0.4 < flag[label] < 0.8 for label in SAFETY)
    assert all(block[label] >= flag[label] for label in SAFETY)
    flagged = (scores[:1000] >= np.array([flag[label] for label in SAFETY])).any(1).mean()
    assert flagged <= recipe.flag_rate


def test_the_threshold_of_a_class_is_where_it_is_told_best() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.35, 0.8, 0.9])
    assert 0.3 < best_f1(scores, np.array([False, False, False, True, True, True]), np.ones(6)) <= 0.35
    assert best_f1(scores, np.zeros(6, np.bool_), np.ones(6)) == 0.5


def test_auc_counts_ties_half() -> None:
    labels = np.array([0, 0, 1, 1])
    assert auc(np.array([1.0, 2.0, 3.0, 4.0]), labels) == 1.0
    assert auc(np.array([1.0, 1.0, 1.0, 1.0]), labels) == 0.5
    assert auc(np.array([4.0, 1.0, 3.0, 2.0]), labels) == 0.5
    assert auc(np.array([1.0, 2.0]), np.array([1, 1])) is None


def scores_with(**changes: object) -> Scores:
    empty = np.zeros(0)
    given = {"safety": np.zeros((0, len(SAFETY))), "tags": [], "classes": [], "entailment": empty, "cosines": empty}
    return Scores(**{**given, "similar": np.zeros(0, np.int64), **changes})  # type: ignore[arg-type]  # a test's dictionaries of values


def test_what_a_graph_will_say_is_foreseen() -> None:
    tags = np.array([[0.9, 0.1, 0, 0, 0, 0], [0.4, 0.6, 0, 0, 0, 0]])
    given = scores_with(safety=np.full((2, len(SAFETY)), 0.3), tags=[tags], entailment=np.array([0.8]))
    platts = [Platt(2.0, 0.5), *[Platt()] * (len(SAFETY) - 1), Platt(0.5)]
    found = calibrated_scores(given, Calibrated(platts, 2.0))
    assert found.safety[0, 0] == pytest.approx(float(sigmoid(2 * logit(np.array([0.3])) + 0.5)[0]))
    np.testing.assert_allclose(found.safety[:, 1:], 0.3)
    np.testing.assert_allclose(found.tags[0][0, :2], [0.75, 0.25], atol=1e-4)
    assert found.entailment[0] == pytest.approx(2 / 3)
    assert change(given, found)["int8_change_safety"] > 0
    assert "int8_change_similarity" not in change(given, found)


def test_names_get_a_threshold_each_and_pairs_a_cosine() -> None:
    tags = np.array([[0.7, 0.3, 0, 0, 0, 0], [0.2, 0.8, 0, 0, 0, 0], [0.6, 0.1, 0.3, 0, 0, 0]])
    given = scores_with(tags=[tags], classes=[np.array([0, 1, 2])])
    found = tag_limits(given, ["s"])
    assert 0.3 < found["PERSON"] <= 0.8
    assert found["ADDRESS"] == 0.5
    cosines = np.concatenate([RNG.normal(0.8, 0.05, 300), RNG.normal(0.1, 0.1, 300)])
    said = similarity(scores_with(cosines=cosines, similar=np.repeat([1, 0], 300)), 0.01)
    assert 0.2 < said["threshold"] < 0.6
    platt = said["calibration"]
    assert sigmoid(np.array([platt["scale"] * 0.8 + platt["bias"]]))[0] > 0.9
    assert sigmoid(np.array([platt["scale"] * 0.1 + platt["bias"]]))[0] < 0.1


def test_tokens_become_spans_of_whole_words() -> None:
    text = "From Anna-Maria Müller, Rome"
    offsets = [(0, 4), (5, 9), (9, 10), (10, 15), (16, 19), (19, 22), (22, 23), (24, 28)]
    names = ("PERSON", "LOCATION")
    given = np.zeros((8, 2), np.float32)
    given[1:5, 0] = 0.9
    given[7] = (0.4, 0.6)
    found = spans_of(text, offsets, given, names, np.array([0.5, 0.5], np.float32))
    assert found == [Span(5, 22, "PERSON"), Span(24, 28, "LOCATION")]
    assert text[5:22] == "Anna-Maria Müller"
    assert spans_of(text, offsets, given * 0.4, names, np.array([0.5, 0.5], np.float32)) == []
