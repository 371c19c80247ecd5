"""Labels that a model trained on the other rows contradicts: a sign of noise, source by source.

Logistic regression over hashed words and word pairs, fitted by AdaGrad (Duchi et al., 2011) in numpy. Rows that share
a document or template are in one fold. A row is suspect where the model is sure of the opposite; that finds wrong
labels and hard examples alike, so a high share says "look here", not "wrong".
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.data.example import SAFETY, Example
from penstock_tuning.data.similar import shingles, words

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

_BUCKETS = 1 << 17
_BATCH, _EPOCHS, _RATE = 256, 5, 1.0
_WORDS = 250
_PER_SOURCE = 600
_SURE = 0.95
_FEWEST = 50
FOLDS = 5


@dataclass(frozen=True)
class Noise:
    """Of the rows of a source with one value of a label, how many the model is sure are the opposite."""

    source: str
    label: str
    value: int
    rows: int
    suspect: int


@dataclass(frozen=True)
class Judged:
    """A label's rows, the area under the curve across folds, and the suspects by source."""

    label: str
    positive: int
    negative: int
    auc: float
    noise: tuple[Noise, ...]


def features(text: str) -> Ids:
    """Buckets of the words and word pairs among the first 250 words; never empty."""
    found = words(text)[:_WORDS]
    ids = np.concatenate([shingles(found, 1), shingles(found, 2)]) if found else np.zeros(1, np.uint64)
    return np.unique(ids % np.uint64(_BUCKETS)).astype(np.int64)


class Linear:
    """A logistic regression over buckets; a row is scaled to unit length."""

    def __init__(self) -> None:
        self._weights: Floats = np.zeros(_BUCKETS)
        self._bias = 0.0

    def fit(self, rows: Sequence[Ids], labels: NDArray[np.int64], seed: int) -> Linear:
        """Both classes weigh the same in total."""
        order = np.random.default_rng(seed)
        balance = np.where(labels == 1, 0.5 / max(1, int(labels.sum())), 0.5 / max(1, int((1 - labels).sum())))
        balance = balance * len(labels)
        squares = np.full(_BUCKETS, 1e-8)
        bias_squares = 1e-8
        for _ in range(_EPOCHS):
            shuffled = order.permutation(len(rows))
            for at in range(0, len(rows), _BATCH):
                batch = shuffled[at : at + _BATCH]
                ids, owners, scale = _flat([rows[index] for index in batch])
                error = (_sigmoid(self._logits(ids, owners, scale, len(batch))) - labels[batch]) * balance[batch]
                gradient = np.bincount(ids, (error[owners] * scale[owners]), _BUCKETS) / len(batch)
                squares += gradient**2
                self._weights -= _RATE * gradient / np.sqrt(squares)
                slope = float(error.mean())
                bias_squares += slope**2
                self._bias -= _RATE * slope / bias_squares**0.5
        return self

    def probabilities(self, rows: Sequence[Ids]) -> Floats:
        """One for each row."""
        parts = [np.empty(0)]
        for at in range(0, len(rows), 4096):
            batch = rows[at : at + 4096]
            parts.append(_sigmoid(self._logits(*_flat(batch), len(batch))))
        return np.concatenate(parts)

    def _logits(self, ids: Ids, owners: Ids, scale: Floats, count: int) -> Floats:
        return np.bincount(owners, self._weights[ids], count) * scale + self._bias


def _flat(rows: Sequence[Ids]) -> tuple[Ids, Ids, Floats]:
    sizes = np.array([len(row) for row in rows])
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), sizes), 1.0 / np.sqrt(sizes)


def _sigmoid(logits: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30)))


def auc(scores: Floats, labels: NDArray[np.int64]) -> float:
    """The area under the ROC curve: how often a positive row scores above a negative one, ties counting half."""
    order = np.argsort(scores, kind="stable")
    _, inverse, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks = np.empty(len(scores))
    ranks[order] = middle[inverse]
    positive = int(labels.sum())
    negative = len(labels) - positive
    return float((ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def fold_of(example: Example) -> int:
    """By the template, else the document, else the text."""
    key = example.template or example.document or example.text
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % FOLDS


def judge(examples: Sequence[Example], label: str, seed: int, made: dict[str, Ids] | None = None) -> Judged | None:
    """Cross-validate one label over rows that know it, at most 600 of a source; None where a class has too few.

    `made` keeps the features of a text from one label to the next.
    """
    by_source: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if label in example.labels:
            by_source[example.source].append(example)
    known = [row for own in by_source.values() for row in own[:: -(-len(own) // _PER_SOURCE)]]
    labels = np.array([example.labels[label] for example in known], np.int64)
    positive = int(labels.sum())
    if min(positive, len(known) - positive) < _FEWEST:
        return None
    made = {} if made is None else made
    for example in known:
        if example.text not in made:
            made[example.text] = features(example.text)
    rows = [made[example.text] for example in known]
    folds = np.array([fold_of(example) for example in known])
    scores = np.zeros(len(known))
    for fold in range(FOLDS):
        inside = np.flatnonzero(folds == fold)
        outside = np.flatnonzero(folds != fold)
        model = Linear().fit([rows[index] for index in outside], labels[outside], seed)
        scores[inside] = model.probabilities([rows[index] for index in inside])
    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for example, value, score in zip(known, labels, scores, strict=True):
        cell = counts[example.source, int(value)]
        cell[0] += 1
        cell[1] += int(score < 1 - _SURE if value else score > _SURE)
    noise = tuple(Noise(source, label, value, *cell) for (source, value), cell in sorted(counts.items()))
    return Judged(label, positive, len(known) - positive, auc(scores, labels), noise)


def judge_all(examples: Sequence[Example], seed: int) -> list[Judged]:
    """Every safety label that has enough rows of both kinds."""
    made: dict[str, Ids] = {}
    found = (judge(examples, label, seed, made) for label in SAFETY)
    return [judged for judged in found if judged is not None]
