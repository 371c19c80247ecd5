"""Figures for a scorer: threshold at a false-positive rate, recall per held-out source, over-defence.

A text counts by its highest-scoring segment, exactly as it does in service. The scorer is any callable from
texts to probabilities, so the numpy weights and the exported ONNX file are measured by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_safety.features import FeatureSettings, segments
from penstock_tuning.abuse.split import Split

Scorer = Callable[[list[str]], NDArray[np.float64]]


def text_scores(texts: list[str], scorer: Scorer, settings: FeatureSettings) -> NDArray[np.float64]:
    """The highest segment probability of each text; 0 for blank text."""
    pieces: list[str] = []
    owners: list[int] = []
    for index, text in enumerate(texts):
        for start, end in segments(text, settings):
            pieces.append(text[start:end])
            owners.append(index)
    best = np.zeros(len(texts))
    if pieces:
        np.maximum.at(best, np.array(owners), scorer(pieces))
    return best


def threshold_at(scores: Iterable[NDArray[np.float64]], rate: float) -> float:
    """The lowest threshold at which at most `rate` of the texts score at or above it, pooled over sources."""
    pooled = np.sort(np.concatenate(list(scores)))[::-1]
    allowed = int(rate * len(pooled))
    return float(np.nextafter(pooled[allowed], 2.0))


def auc(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """The probability that a positive scores above a negative, ties counting half (Mann-Whitney U)."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left")
    through = np.searchsorted(ordered, positives, side="right")
    return round(float((below + through).mean() / 2 / len(negatives)), 4)


def report(split: Split, scorer: Scorer, settings: FeatureSettings, threshold: float) -> dict[str, Any]:
    """Recall, false-positive rate and AUC on sources that neither trained nor set the threshold."""
    valid = {name: text_scores(texts, scorer, settings) for name, texts in split.valid_benign.items()}
    benign = {name: text_scores(texts, scorer, settings) for name, texts in split.report_benign.items()}
    ordinary = np.concatenate(list(benign.values()))
    held_out: dict[str, Any] = {}
    for name, rows in split.report_toxic.items():
        scores = text_scores([text for text, _ in rows], scorer, settings)
        labels = np.array([label for _, label in rows])
        positives, negatives = scores[labels == 1], scores[labels == 0]
        entry = {
            "positives": len(positives),
            "recall": _rate(positives, threshold),
            "auc_vs_ordinary_requests": auc(positives, ordinary),
        }
        if len(negatives):
            entry["negatives"] = len(negatives)
            entry["over_defence"] = _rate(negatives, threshold)
            entry["auc"] = auc(positives, negatives)
        held_out[name] = entry
    return {
        "threshold": threshold,
        "valid_false_positive_rate": {name: _rate(scores, threshold) for name, scores in valid.items()},
        "report_false_positive_rate": {name: _rate(scores, threshold) for name, scores in benign.items()},
        "report_false_positive_rate_pooled": _rate(ordinary, threshold),
        "held_out": held_out,
    }


def _rate(scores: NDArray[np.float64], threshold: float) -> float:
    return round(float((scores >= threshold).mean()), 4)
