"""One measured figure of one group of rows, for every system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock_tuning.data.example import Example
from penstock_tuning.evaluate.bootstrap import Draws, Estimate, draw, estimate
from penstock_tuning.evaluate.metrics import Bools, Statistic, mean

MEAN = "mean"
"""The group of the figure that stands for all: the mean over sources, or all rows together."""
FEWEST = 50
"""Rows from which on a source counts in a mean over sources."""

Of = Callable[[Bools], Statistic]
"""From the rows that are asked about to the statistic of them."""


@dataclass(frozen=True)
class Figure:
    """A metric of a group of rows."""

    metric: str
    group: str
    rows: int
    values: Mapping[str, Estimate]
    """By system."""
    gains: Mapping[str, Estimate]
    """How far the first system is above each other."""


@dataclass(frozen=True)
class Sheet:
    """What the figures of one set of rows share: the draws, and the system that the others are compared with."""

    draws: Draws
    first: str | None

    @classmethod
    def of(cls, examples: Sequence[Example], resamples: int, seed: int, first: str | None) -> Sheet:
        """Draws within each source; rows of one document are drawn together."""
        documents = [row.document if row.document.rpartition("/")[2] else "" for row in examples]
        return cls(draw([row.source for row in examples], documents, resamples, seed), first)

    def figure(self, metric: str, group: str, among: Bools, of: Mapping[str, Of]) -> Figure:
        """One figure of the rows `among`."""
        return self.measured(metric, group, int(among.sum()), {name: make(among) for name, make in of.items()})

    def measured(self, metric: str, group: str, rows: int, statistics: Mapping[str, Statistic]) -> Figure:
        """One figure of statistics that are at hand."""
        values, gains = estimate(statistics, self.draws, self.first)
        return Figure(metric, group, rows, values, gains)


def by_group(
    sheet: Sheet,
    groups: Sequence[str],
    metric: str,
    among: Bools,
    of: Mapping[str, Of],
    *,
    apart: Sequence[str] = (),
    together: bool = True,
) -> Iterator[Figure]:
    """The mean over the groups, then each group.

    Args:
        sheet: of the rows.
        groups: of each row, such as its source.
        metric: its name.
        among: the rows that are asked about.
        of: by system, from such rows to their statistic.
        apart: groups that are no part of the mean.
        together: whether there is a mean.
    """
    names = np.array(groups)
    counted = large(name for name, asked in zip(groups, among, strict=True) if asked and name not in apart)
    if together and counted:
        own = {name: mean([make(among & (names == group)) for group in counted]) for name, make in of.items()}
        rows = int((among & np.isin(names, counted)).sum())
        yield sheet.measured(metric, MEAN, rows, own)
    for group in sorted(set(names[among].tolist())):
        yield sheet.figure(metric, group, among & (names == group), of)


def large(groups: Iterable[str], fewest: int = FEWEST) -> list[str]:
    """Names of the groups that have at least `fewest` rows; all where none has."""
    sizes = Counter(groups)
    return sorted(name for name, size in sizes.items() if size >= fewest) or sorted(sizes)
