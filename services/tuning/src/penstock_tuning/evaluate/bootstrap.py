"""Confidence intervals by the bootstrap (Efron, 1979), percentile method.

Drawn are clusters, not rows: rows that share a document or a template say the same thing twice. Each source is drawn
for itself, so that every draw has as many clusters of each. All systems see the same draws, which gives the interval
of a difference between two of them as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.evaluate.metrics import Floats, Statistic

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds it with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Draws:
    """Weights of the rows in each resample."""

    rows: int
    weights: NDArray[np.float32]
    """`[resamples, rows]`: how often a row was drawn."""


def draw(strata: Sequence[str], clusters: Sequence[str], resamples: int, seed: int) -> Draws:
    """Resample the clusters of each stratum with replacement.

    Args:
        strata: of each row, such as its source.
        clusters: of each row, a key within its stratum; rows with an empty one stand alone.
        resamples: how many.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (stratum, cluster) in enumerate(zip(strata, clusters, strict=True)):
        members[stratum][cluster or f"row {row}"].append(row)
    weights = np.zeros((resamples, len(strata)), np.float32)
    for stratum in sorted(members):
        groups = list(members[stratum].values())
        counts = random.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
        for group, drawn in zip(groups, counts.T, strict=True):
            weights[:, group] = drawn[:, None]
    return Draws(len(strata), weights)


def estimate(
    statistics: Mapping[str, Statistic], draws: Draws, first: str | None = None
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """A figure for each system, and how far `first` is above each of the others.

    A resample in which the figure does not exist (no positive row was drawn) is left out.
    """
    whole = {name: statistic(np.ones(draws.rows)) for name, statistic in statistics.items()}
    drawn = {
        name: np.array([statistic(row.astype(np.float64)) for row in draws.weights])
        for name, statistic in statistics.items()
    }
    values = {name: _interval(whole[name], drawn[name]) for name in statistics}
    if first is None or first not in statistics:
        return values, {}
    others = [name for name in statistics if name != first]
    return values, {name: _interval(whole[first] - whole[name], drawn[first] - drawn[name]) for name in others}


def _interval(value: float, drawn: Floats) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Estimate(value, value, value)
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value, float(low), float(high))
