"""Figures of the tasks on pairs of texts: how alike two texts are, and whether a response follows from its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from penstock_tuning.data.example import Example
from penstock_tuning.evaluate.figures import Figure, Of, Sheet, by_group
from penstock_tuning.evaluate.metrics import Bools, Floats, area, balanced_accuracy, rank_correlation
from penstock_tuning.evaluate.systems import Answers

VALIDATION = "validation"
"""The kind of rows of a source that training did not read but a model was chosen by: shown, in no mean."""


def similarity(rows: Sequence[Example], answers: Mapping[str, Answers], sheet: Sheet) -> Iterator[Figure]:
    """Spearman's correlation of what a system gives a pair with whether it is alike, and the area under the curve.

    Of labels of two values, half of the pairs each, no score without ties correlates with more than 0.866.
    """
    labels, every, sources = _read(rows, "similar")
    apart = sorted({row.source for row in rows if row.kind == VALIDATION})
    scores = {name: own.similarity.astype(np.float64) for name, own in answers.items()}
    for metric, of in (
        ("embedding_spearman", {name: _correlation(one, labels) for name, one in scores.items()}),
        ("embedding_auc", {name: _area(one, labels) for name, one in scores.items()}),
    ):
        yield from by_group(sheet, sources, metric, every, of, apart=apart)


def entailment(rows: Sequence[Example], answers: Mapping[str, Answers], sheet: Sheet) -> Iterator[Figure]:
    """Balanced accuracy at the default threshold, and the area under the curve, which needs none."""
    labels, every, sources = _read(rows, "entailed")
    said = {name: own.entailment >= own.flag["entailed"] for name, own in answers.items()}
    scores = {name: own.entailment.astype(np.float64) for name, own in answers.items()}
    for metric, of in (
        ("entailment_balanced_accuracy", {name: _accuracy(one, labels) for name, one in said.items()}),
        ("entailment_auc", {name: _area(one, labels) for name, one in scores.items()}),
    ):
        yield from by_group(sheet, sources, metric, every, of)


def _read(rows: Sequence[Example], label: str) -> tuple[Bools, Bools, list[str]]:
    """Whether the label holds, which sources have rows of both kinds, and the sources."""
    labels = np.array([row.labels[label] == 1 for row in rows], np.bool_)
    sources = [row.source for row in rows]
    both = {source for source in set(sources) if len({*labels[np.array(sources) == source].tolist()}) == 2}
    return labels, np.array([source in both for source in sources], np.bool_), sources


def _correlation(scores: Floats, labels: Bools) -> Of:
    return lambda among: rank_correlation(scores, labels, among)


def _area(scores: Floats, labels: Bools) -> Of:
    return lambda among: area(scores, among & labels, among & ~labels)


def _accuracy(said: Bools, labels: Bools) -> Of:
    return lambda among: balanced_accuracy(said, among & labels, among & ~labels)
