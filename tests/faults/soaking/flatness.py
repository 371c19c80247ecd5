"""What flat means, and whether a run was: medians of a span's last quarter against those of its second.

The first quarter is warm-up. For memory, descriptors and threads the span is the longest life of one process
of the service in which nothing but pauses came to it; for lag it is the run. A life shorter than `MIN_LIFE_S`
says nothing about leaks: its growth is shown and not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.support.stack import SERVICES

MIN_LIFE_S = 900.0
"""The second quarter then begins when all memory set aside for the key/value cache has been touched once."""
LIMITS = {"rss_mb": (8.0, 0.05), "fds": (4.0, 0.05), "threads": (2.0, 0.05)}
"""Growth allowed between the two quarters: so much, or so large a share of the former, whichever is more."""
LAG_S = 30.0
"""Likewise of the lag: as many records as are sent in so many seconds."""

Series = Sequence[tuple[float, float]]
"""Seconds and values, in order of time."""


@dataclass(frozen=True)
class Growth:
    """One figure of one service over its longest life, or over the run."""

    service: str
    measure: str
    span_s: float
    before: float
    after: float
    limit: float
    judged: bool

    @property
    def growth(self) -> float:
        """Of the median, from the second quarter to the last."""
        return self.after - self.before

    @property
    def broken(self) -> bool:
        """Whether it grew by more than its limit."""
        return self.judged and self.growth > self.limit


def quarters(series: Series) -> tuple[float, float] | None:
    """Medians in the second and the last quarter of a span; None where one of them has no value."""
    if not series:
        return None
    start, end = series[0][0], series[-1][0]
    span = end - start
    second = [value for at, value in series if start + span / 4 <= at < start + span / 2]
    last = [value for at, value in series if at >= start + 3 * span / 4]
    return (median(second), median(last)) if second and last else None


def lives(samples: Iterable[Mapping[str, Any]], service: str) -> list[list[Mapping[str, Any]]]:
    """A service's processes, one after another: each its samples, with `t` among them."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        facts = sample["processes"].get(service)
        if facts is not None:
            found.setdefault(facts["pid"], []).append({"t": sample["t"], **facts})
    return list(found.values())


def growths(samples: Sequence[Mapping[str, Any]], rate: float) -> list[Growth]:
    """Each figure of each service that can be told from these samples."""
    found = []
    for service in SERVICES:
        mine = lives(samples, service)
        longest = max(mine, key=lambda life: life[-1]["t"] - life[0]["t"], default=[])
        for measure, (least, share) in LIMITS.items():
            series = [(facts["t"], facts[measure]) for facts in longest]
            if (medians := quarters(series)) is not None:
                limit = max(least, share * medians[0])
                found.append(_growth(service, measure, series, medians, limit))
        series = [(sample["t"], sample["lag"][service]) for sample in samples if sample["lag"] is not None]
        if (medians := quarters(series)) is not None:
            found.append(_growth(service, "lag", series, medians, LAG_S * rate))
    return found


def _growth(service: str, measure: str, series: Series, medians: tuple[float, float], limit: float) -> Growth:
    span = series[-1][0] - series[0][0]
    return Growth(service, measure, span, *medians, limit, judged=span >= MIN_LIFE_S)
