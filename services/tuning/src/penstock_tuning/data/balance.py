"""Weights that keep a large class or source from drowning the small ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from penstock_tuning.data.example import SAFETY, Example

_LIGHTEST, _HEAVIEST = 0.2, 5.0


def weighted(examples: Sequence[Example]) -> list[Example]:
    """The same examples with weights that average 1.

    Every class has the same total; within a class a source counts by the square root of its size, so that a source
    of a hundred times the rows has ten times the influence. No weight is under 0.2 or over 5 before the average.
    """
    keys = [(class_of(example), example.source) for example in examples]
    sizes = Counter(keys)
    totals: dict[str, float] = defaultdict(float)
    for (name, _), size in sizes.items():
        totals[name] += size**0.5
    share = len(examples) / max(1, len(totals))
    raw = [min(_HEAVIEST, max(_LIGHTEST, share / totals[key[0]] / sizes[key] ** 0.5)) for key in keys]
    mean = sum(raw) / max(1, len(raw))
    return [replace(example, weight=value / mean) for example, value in zip(examples, raw, strict=True)]


def class_of(example: Example) -> str:
    """The first positive safety label, the label of a pair, or whether there are spans."""
    for name in SAFETY:
        if example.labels.get(name) == 1:
            return name
    if example.pair is not None:
        return str(sorted(example.labels.items()))
    return "spans" if example.spans else "ordinary"
