"""Cleaning across sources: exact and near-duplicates, and what training shares with held-out text.

Held-out rows win: of two texts that resemble each other the one in the test stays, then the one in the validation.
Within the training split near-duplicates go only where their labels are the same: texts that resemble each other and
carry different ones are what a model has to tell apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock_tuning.data.example import SPLITS, Example
from penstock_tuning.data.similar import NearIndex, Sequences, shingles, signature, words

REASONS = ("exact duplicate", "near-duplicate", "shared with held-out", "contradiction", "kept")
_TRIPLE = 3


@dataclass
class Cleaned:
    """The examples of each split, and for each source how many rows went for which reason."""

    splits: dict[str, list[Example]]
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def clean(loaded: Mapping[str, Sequence[Example]], held_out: Mapping[str, Sequences]) -> Cleaned:
    """Remove duplicates within and across the splits, and from a split what it shares with text it must not know.

    Pairs are compared exactly only: one that differs in a word may differ in its label.

    Args:
        loaded: examples by split; earlier ones win.
        held_out: for `train` and `validation` the word sequences that they must not contain.
    """
    result = Cleaned({})
    elsewhere = NearIndex()
    for split, examples in _merged(loaded, result.counts):
        known = held_out.get(split)
        own, kept = NearIndex(), []
        for example in examples:
            counts = result.counts[example.source]
            found = words(example.text)
            if known is not None and _known(example, found, known):
                counts["shared with held-out"] += 1
                continue
            if example.pair is None:
                mine = signature(shingles(found, _TRIPLE))
                group = str(sorted(example.labels.items()))
                # Rows of a test may be variants of one text on purpose: nothing is learnt from them.
                if elsewhere.knows(mine) or (split == "train" and own.knows(mine, group)):
                    counts["near-duplicate"] += 1
                    continue
                own.add(mine, group)
            counts["kept"] += 1
            kept.append(example)
        elsewhere.absorb(own)
        result.splits[split] = kept
    return result


def _known(example: Example, found: Sequence[str], held_out: Sequences) -> bool:
    if example.pair is None:
        return held_out.share(found)
    # One side of a pair may be a word or a common question; a run of eight words in either side gives it away.
    sides = (found, words(example.pair))
    return any(held_out.share(side) for side in sides if len(side) >= Sequences.SIZE)


def _merged(
    loaded: Mapping[str, Sequence[Example]], counts: Mapping[str, Counter[str]]
) -> Iterator[tuple[str, list[Example]]]:
    """Each split, held-out ones first, with each text once: labels of its copies joined, contradictions left out."""
    seen: set[str] = set()
    for split in reversed(SPLITS):
        first: dict[str, int] = {}
        rows: list[Example | None] = []
        for example in loaded.get(split, ()):
            key = f"{' '.join(example.text.lower().split())}\0{' '.join((example.pair or '').lower().split())}"
            if key in seen:
                counts[example.source]["exact duplicate"] += 1
            elif key not in first:
                first[key] = len(rows)
                rows.append(example)
            else:
                counts[example.source]["exact duplicate"] += 1
                rows[first[key]] = _joined(rows[first[key]], example, counts)
        seen.update(first)
        yield split, [row for row in rows if row is not None]


def _joined(first: Example | None, copy: Example, counts: Mapping[str, Counter[str]]) -> Example | None:
    if first is None:
        return None
    if any(first.labels.get(name, value) != value for name, value in copy.labels.items()):
        counts[first.source]["contradiction"] += 1
        return None
    return replace(first, labels={**copy.labels, **first.labels})
