"""Figures of rows that weigh: a weight of 2 counts as the row twice, 0 as left out.

Each function takes scores and labels and gives a function of the weights, so that what does not depend on them
(sorting) is done once and a bootstrap over thousands of draws is cheap. Where no row of a kind has weight the figure
is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock.heads.spans import Span

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Statistic = Callable[[Floats], float]
"""From the weights of all rows of a set, `[rows]`, to a figure."""


def area(scores: ArrayLike, positive: Bools, negative: Bools) -> Statistic:
    """The area under the ROC curve: how often a positive row scores above a negative one, ties counting half.

    Args:
        scores: `[rows]`.
        positive: `[rows]`, which rows should score high.
        negative: `[rows]`, which should score low; rows that are neither do not count.
    """
    kept = np.flatnonzero(positive | negative)
    order, starts = _ties(np.asarray(scores, np.float64)[kept])
    kept = kept[order]
    up, down = positive[kept].astype(np.float64), negative[kept].astype(np.float64)

    def of(weights: Floats) -> float:
        if not len(kept):
            return float("nan")
        above = np.add.reduceat(weights[kept] * up, starts)
        below = np.add.reduceat(weights[kept] * down, starts)
        total = above.sum() * below.sum()
        if not total:
            return float("nan")
        return float((above * (np.cumsum(below) - below / 2)).sum() / total)

    return of


def recall_at(scores: ArrayLike, positive: Bools, negative: Bools, rate: float) -> Statistic:
    """The share of positive rows at or above the lowest threshold that at most `rate` of the negative rows reach."""
    values = np.asarray(scores, np.float64)
    highest_first = np.flatnonzero(negative)
    order, starts = _ties(-values[highest_first])
    highest_first = highest_first[order]
    levels = values[highest_first][starts] if len(highest_first) else np.empty(0)
    wanted = np.flatnonzero(positive)

    def of(weights: Floats) -> float:
        total = weights[wanted].sum()
        if not total or not len(levels) or not weights[highest_first].sum():
            return float("nan")
        flagged = np.cumsum(np.add.reduceat(weights[highest_first], starts))
        within = int(np.searchsorted(flagged, rate * flagged[-1] * (1 + 1e-12), side="right"))
        # Whatever lies above the first level that is too many is found; with no such level everything is.
        found = values[wanted] > levels[within] if within < len(levels) else np.ones(len(wanted), np.bool_)
        return float(weights[wanted][found].sum() / total)

    return of


def share(hits: Bools, among: Bools) -> Statistic:
    """The share of the rows `among` that are `hits`."""
    rows = np.flatnonzero(among)
    hit = hits[rows].astype(np.float64)

    def of(weights: Floats) -> float:
        total = weights[rows].sum()
        return float((weights[rows] * hit).sum() / total) if total else float("nan")

    return of


def balanced_accuracy(said: Bools, positive: Bools, negative: Bools) -> Statistic:
    """The mean of the shares of positive rows that are said to be so and of negative rows that are not."""
    return mean([share(said, positive), share(~said, negative)])


def rank_correlation(one: ArrayLike, other: ArrayLike, among: Bools) -> Statistic:
    """Spearman's correlation over the rows `among`: Pearson's of the ranks, ties sharing their mean rank."""
    rows = np.flatnonzero(among)
    sides = [np.asarray(values, np.float64)[rows] for values in (one, other)]
    sorted_sides = [_ties(side) for side in sides]

    def of(weights: Floats) -> float:
        own = weights[rows]
        total = own.sum()
        if not total:
            return float("nan")
        ranks = [_ranks(own, order, starts) for order, starts in sorted_sides]
        first, second = (rank - (own * rank).sum() / total for rank in ranks)
        spread = (own * first**2).sum() * (own * second**2).sum()
        return float((own * first * second).sum() / spread**0.5) if spread > 0 else float("nan")

    return of


def f1(right: ArrayLike, said: ArrayLike, wanted: ArrayLike) -> Statistic:
    """The harmonic mean of precision and recall from counts of each row: `right` of `said`, of what was `wanted`."""
    counts = [np.asarray(values, np.float64) for values in (right, said, wanted)]

    def of(weights: Floats) -> float:
        found, given, there = (float((weights * values).sum()) for values in counts)
        return 2 * found / (given + there) if given + there else float("nan")

    return of


def mean(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several figures, each counting the same; NaN where one is."""

    def of(weights: Floats) -> float:
        return float(np.mean([statistic(weights) for statistic in statistics])) if statistics else float("nan")

    return of


def span_counts(found: Sequence[Span], wanted: Sequence[Span], label: str) -> tuple[int, int, int]:
    """Of one text and one label: spans found with exactly the wanted bounds, spans found, spans wanted."""
    said, there = ({(span.start, span.end) for span in spans if span.label == label} for spans in (found, wanted))
    return len(said & there), len(said), len(there)


def _ties(values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The ascending order, and where in it each run of equal values starts."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(values) else order
    return order, starts


def _ranks(weights: Floats, order: NDArray[np.intp], starts: NDArray[np.intp]) -> Floats:
    """Mean ranks as if each row stood there as often as it weighs."""
    sizes = np.add.reduceat(weights[order], starts)
    middle = np.cumsum(sizes) - (sizes - 1) / 2
    lengths = np.diff(np.append(starts, len(order)))
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(middle, lengths)
    return ranks
