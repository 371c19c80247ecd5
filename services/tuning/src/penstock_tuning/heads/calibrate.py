"""Probabilities and thresholds from texts kept apart. Plain NumPy: no model, no files.

A source counts by the square root of its size, so that no large one decides alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.data.example import SAFETY

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FEWEST = 20
"""Texts of each class below which a label keeps the probabilities that it was trained with."""
_STEPS = 60
_SETTLED = 1e-7
_RIDGE = 1e-2
_STEEP = (0.1, 10.0)
_NEVER = 1.0 - 1e-6
_EDGE = 1e-7


@dataclass(frozen=True)
class Platt:
    """Probability = sigmoid(scale * logit + bias) (Platt, 1999)."""

    scale: float = 1.0
    bias: float = 0.0
    positives: int = 0
    negatives: int = 0

    def __call__(self, logits: Floats) -> Floats:
        """The calibrated probabilities."""
        return sigmoid(self.scale * logits + self.bias)


@dataclass(frozen=True)
class Calibrated:
    """What is folded into the weights; identity where nothing is given."""

    pooled: Sequence[Platt] = field(default_factory=lambda: [Platt()] * (len(SAFETY) + 1))
    """Of the safety labels in their order, then of entailment."""
    temperature: float = 1.0
    """Of the classes of personal data."""


def sigmoid(logits: Floats) -> Floats:
    """Of any shape, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def logit(probabilities: NDArray[np.floating]) -> Floats:
    """The inverse of `sigmoid`, of probabilities kept off 0 and 1."""
    kept = np.clip(np.asarray(probabilities, np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(kept / (1 - kept)), np.float64)


def by_source(sources: Sequence[str]) -> Floats:
    """`[texts]` weights that average 1: a source counts by the square root of its size."""
    sizes = Counter(sources)
    weights = np.array([sizes[source] ** -0.5 for source in sources])
    return np.asarray(weights / weights.mean()) if len(weights) else weights


def fit_platt(logits: Floats, labels: NDArray[np.integer], weights: Floats) -> Platt:
    """The scale and bias of least cross-entropy, by Newton's method; identity where a class has too few texts.

    Args:
        logits: `[texts]`.
        labels: `[texts]`, 0 or 1; targets are Platt's, (positives + 1) / (positives + 2) and 1 / (negatives + 2).
        weights: `[texts]`.
    """
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if min(positives, negatives) < _FEWEST:
        return Platt(positives=positives, negatives=negatives)
    wanted = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    columns = np.stack((np.asarray(logits, np.float64), np.ones(len(logits))), axis=1)
    start = np.array([1.0, 0.0])

    def cost(at: Floats) -> float:
        given = columns @ at
        return float(
            (weights * (np.logaddexp(0.0, given) - wanted * given)).sum() + _RIDGE / 2 * ((at - start) ** 2).sum()
        )

    point, value = start, cost(start)
    for _ in range(_STEPS):
        found = sigmoid(columns @ point)
        slope = columns.T @ (weights * (found - wanted)) + _RIDGE * (point - start)
        bend = (columns * (weights * found * (1 - found))[:, None]).T @ columns + _RIDGE * np.eye(2)
        step = np.linalg.solve(bend, slope)
        while cost(point - step) > value and float(np.abs(step).max()) > _SETTLED:
            step = step / 2
        if float(np.abs(step).max()) <= _SETTLED:
            break
        point = point - step
        value = cost(point)
    scale = float(np.clip(point[0], *_STEEP))
    return Platt(scale, float(point[1]), positives, negatives)


def fit_temperature(logits: Floats, classes: NDArray[np.integer], weights: Floats) -> float:
    """What `[tokens, classes]` logits are divided by for least cross-entropy (Guo et al., 2017), from 0.25 to 4."""
    if not len(logits):
        return 1.0
    candidates = np.exp(np.linspace(np.log(0.25), np.log(4.0), 65))

    def cost(temperature: float) -> float:
        scaled = logits / temperature
        top = scaled.max(1, keepdims=True)
        logs = scaled - top - np.log(np.exp(scaled - top).sum(1, keepdims=True))
        return float(-(logs[np.arange(len(logs)), classes] * weights).sum())

    return float(min(candidates, key=cost))


def quantile_above(scores: Floats, weights: Floats, rate: float) -> float:
    """The lowest threshold that at most `rate` of the weight reaches; 1 - 1e-6 where none is low enough."""
    order = np.argsort(-scores, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    allowed = int(np.searchsorted(reached, rate, side="right"))
    if allowed >= len(order):
        return 0.0
    above = float(scores[order[allowed]])
    higher = scores[scores > above]
    return float((above + higher.min()) / 2) if len(higher) else min(_NEVER, above + (1 - above) / 2)


def thresholds(
    scores: Floats, weights: Floats, labels: Sequence[str], shares: Mapping[str, float], rate: float
) -> dict[str, float]:
    """A threshold for each label, such that all of them together reach at most `rate` of ordinary texts.

    Args:
        scores: `[texts, labels]` probabilities of ordinary texts.
        weights: `[texts]`.
        labels: the names of the columns.
        shares: how labels divide the rate; 1 where one is not named.
        rate: of the weight, such as 0.01.
    """
    parts = np.array([shares.get(label, 1.0) for label in labels])
    parts = parts / parts.max()

    def at(each: float) -> Floats:
        pairs = enumerate(parts * each)
        return np.array([quantile_above(scores[:, column], weights, float(part)) for column, part in pairs])

    def flagged(limits: Floats) -> float:
        return float(weights[(scores >= limits).any(1)].sum() / weights.sum())

    low, high = 0.0, rate
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if flagged(at(middle)) <= rate else (low, middle)
    return {label: round(float(limit), 6) for label, limit in zip(labels, at(low), strict=True)}


def best_f1(scores: Floats, wanted: Flags, weights: Floats) -> float:
    """The threshold of highest weighted F1, from 0.1 to 0.95, the middle of several; 0.5 where nothing is wanted."""
    if not bool(wanted.any()):
        return 0.5
    candidates = np.linspace(0.1, 0.95, 86)

    def quality(limit: float) -> float:
        found = scores >= limit
        right = float(weights[found & wanted].sum())
        return 2 * right / max(1e-12, float(weights[found].sum() + weights[wanted].sum()))

    reached = np.array([quality(float(limit)) for limit in candidates])
    best = candidates[reached >= reached.max() - 1e-9]
    return round(float(best[len(best) // 2]), 4)


def auc(scores: Floats, labels: NDArray[np.integer]) -> float | None:
    """The chance that a positive scores above a negative, ties counting half; None where a class is empty."""
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if not positives or not negatives:
        return None
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    total = float(middle[ranks][labels == 1].sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)
