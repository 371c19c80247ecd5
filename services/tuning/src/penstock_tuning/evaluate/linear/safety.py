"""Logistic regressions over hashed n-grams, one for each safety label.

Features, segments and the rule that a text counts by its highest segment are those of the classifier that the safety
service ships without an encoder; here every label has one, and a segment of a document is an attack only where it
meets the marked place.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # type: ignore[import-untyped,import-not-found,unused-ignore]  # it has no types
from sklearn.linear_model import SGDClassifier

from penstock_safety.features import FeatureSettings, ngram_ids, segments
from penstock_tuning.data.example import SAFETY, Example
from penstock_tuning.evaluate.systems import Scores

LABELS = tuple(label for label in SAFETY if not label.startswith("harm_"))
"""Those that a figure is made of; the categories of harm are not."""
SETTINGS = FeatureSettings(buckets=1 << 19)
SEGMENTS = 3
"""Of a text, drawn, beside those that meet a marked attack."""
STRENGTH = 3.0
"""Inverse of the regularization, as for the shipped classifier."""
FALSE_POSITIVES = 0.0025
"""Of ordinary validation requests, for the threshold of each label: together about one in a hundred."""
_UNKNOWN = -1


@dataclass(frozen=True)
class Segments:
    """Training rows: texts, what is known of each label (-1: nothing), and weights that add up to the texts'."""

    texts: list[str]
    labels: NDArray[np.int8]
    """`[rows, len(LABELS)]`."""
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class LinearSafety:
    """One column of weights for each label; `table[0]` (padding) is 0."""

    table: NDArray[np.float32]
    """`[buckets, len(LABELS)]`."""
    bias: NDArray[np.float32]
    thresholds: NDArray[np.float32]

    def __call__(self, texts: Sequence[str]) -> Scores:
        """Probabilities `[texts, len(SAFETY)]` of the highest segment; NaN for labels without a model."""
        found = np.full((len(texts), len(SAFETY)), np.nan, np.float32)
        columns = [SAFETY.index(label) for label in LABELS]
        for row, text in enumerate(texts):
            logits = [self._logits(text[start:end]) for start, end in segments(text, SETTINGS)]
            highest = np.max(logits, axis=0) if logits else np.full(len(LABELS), -np.inf)
            found[row, columns] = 1 / (1 + np.exp(-np.clip(highest, -30, 30)))
        return found

    def _logits(self, text: str) -> NDArray[np.float32]:
        ids = ngram_ids(text, SETTINGS)
        total: NDArray[np.float32] = self.table[ids].sum(axis=0) / np.sqrt(max(len(ids), 1)) + self.bias
        return total

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez_compressed(path, table=self.table, bias=self.bias, thresholds=self.thresholds)

    @classmethod
    def load(cls, path: Path) -> LinearSafety:
        """The inverse of `save`."""
        with np.load(path) as stored:
            return cls(stored["table"], stored["bias"], stored["thresholds"])


def fit(train: Iterable[Example], ordinary: Sequence[str], seed: int, most: int) -> LinearSafety:
    """Train on at most `most` segments; thresholds are chosen on `ordinary` requests of other sources."""
    rows = cut(train, seed, most)
    matrix = featurize(rows.texts)
    table = np.zeros((SETTINGS.buckets, len(LABELS)), np.float32)
    bias = np.zeros(len(LABELS), np.float32)
    for column in range(len(LABELS)):
        known = np.flatnonzero(rows.labels[:, column] != _UNKNOWN)
        labels = rows.labels[known, column]
        if len(set(labels.tolist())) < 2:
            bias[column] = -30.0
            continue
        model = SGDClassifier(
            loss="log_loss", alpha=1 / (STRENGTH * len(known)), max_iter=8, tol=None, average=True, random_state=seed
        )
        model.fit(matrix[known], labels, sample_weight=rows.weights[known])
        table[:, column] = model.coef_[0]
        bias[column] = model.intercept_[0]
    made = LinearSafety(table, bias, np.full(len(LABELS), np.inf, np.float32))
    if not ordinary:
        return made
    scores = np.sort(made(ordinary)[:, [SAFETY.index(label) for label in LABELS]], axis=0)[::-1]
    thresholds = np.nextafter(scores[int(FALSE_POSITIVES * len(ordinary))], np.float32(2))
    return LinearSafety(table, bias, thresholds.astype(np.float32))


def cut(examples: Iterable[Example], seed: int, most: int) -> Segments:
    """Segments of the texts with the labels of each, at most `most`, drawn evenly over what there is."""
    draw = random.Random(seed)
    drawn: list[tuple[str, list[int], float]] = []
    for example in examples:
        drawn.extend(_pieces(example, draw))
    if len(drawn) > most:
        drawn = draw.sample(drawn, most)
    return Segments(
        [text for text, _, _ in drawn],
        np.array([labels for _, labels, _ in drawn], np.int8).reshape(-1, len(LABELS)),
        np.array([weight for _, _, weight in drawn], np.float32),
    )


def _pieces(example: Example, draw: random.Random) -> Iterator[tuple[str, list[int], float]]:
    labels = [_UNKNOWN if (value := example.label(name)) is None else value for name in LABELS]
    found = segments(example.text, SETTINGS)
    met = [(start, end) for start, end in found if any(span.start < end and span.end > start for span in example.spans)]
    rest = [each for each in found if each not in met]
    chosen = [*met[:SEGMENTS], *draw.sample(rest, min(len(rest), SEGMENTS))]
    clear = [0 if value == 1 and example.spans else value for value in labels]
    for start, end in chosen:
        own = labels if not example.spans or (start, end) in met else clear
        yield example.text[start:end], own, example.weight / len(chosen)


def featurize(texts: Sequence[str]) -> csr_matrix:
    """`[texts, buckets]`, rows of unit length."""
    bounds = np.zeros(len(texts) + 1, np.int64)
    parts: list[NDArray[np.int32]] = []
    for at, text in enumerate(texts):
        ids = ngram_ids(text, SETTINGS).astype(np.int32)
        parts.append(ids)
        bounds[at + 1] = bounds[at] + len(ids)
    columns = np.concatenate([np.empty(0, np.int32), *parts])
    sizes = np.diff(bounds)
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
    return csr_matrix((values, columns, bounds), shape=(len(texts), SETTINGS.buckets))
