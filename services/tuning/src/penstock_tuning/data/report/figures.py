"""The figures of the report: counts, lengths, languages, overlaps between sets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from penstock_tuning.data.build import Progress, cleaned, held_out
from penstock_tuning.data.cleaning import Cleaned
from penstock_tuning.data.example import SPLITS, TASKS, Example
from penstock_tuning.data.loading import load_source
from penstock_tuning.data.manifest import Manifest
from penstock_tuning.data.report.noise import Judged, judge_all
from penstock_tuning.data.similar import Sequences, shingles, words

BINS = (0, 20, 50, 100, 200, 500, 1000, 2000, 4001)
"""Bounds of the lengths' classes, in characters."""
_SAMPLE = 1000


@dataclass(frozen=True)
class SplitFigures:
    """What one side of a task holds."""

    examples: int
    sources: int
    characters: int
    quantiles: tuple[int, int, int]
    """Characters of the text at 5, 50 and 95 of a hundred."""
    lengths: tuple[int, ...]
    """Examples in each class of `BINS`."""
    languages: Mapping[str, int]
    labels: Mapping[str, tuple[int, int]]
    """For each label how many rows say 0 and how many say 1; for spans their number stands second."""


@dataclass(frozen=True)
class Overlap:
    """The share of texts (of at most 1,000) of one set that share eight words in a row with another."""

    source: str
    other: str
    share: float
    crosses: bool
    """Whether the two are on different sides of the split."""


@dataclass
class Figures:
    """All of the report."""

    splits: dict[str, dict[str, SplitFigures]] = field(default_factory=dict)
    removed: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    """By task and source: rows by what became of them."""
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    """By source of the safety task: rows with each positive label, or none."""
    overlaps: list[Overlap] = field(default_factory=list)
    noise: list[Judged] = field(default_factory=list)


def collect(manifest: Manifest, root: Path, seed: int, progress: Progress) -> Figures:
    """Read, clean and count everything: some minutes and 3 GB for all of the sets."""
    result = Figures()
    known = held_out(seed, root, manifest)
    for task in TASKS:
        data = cleaned(task, seed, root, manifest, progress, known=known)
        result.splits[task] = {split: count(data.splits[split]) for split in SPLITS}
        result.removed[task] = dict(data.counts)
        if task == "safety":
            result.classes = _classes(data)
            progress("safety: cross-validating the labels")
            result.noise = judge_all(data.splits["train"], seed)
    progress("overlaps between sets")
    result.overlaps = overlaps(manifest, root, seed)
    return result


def count(examples: Sequence[Example]) -> SplitFigures:
    """The figures of some examples."""
    sizes = np.array([len(example.text) for example in examples] or [0])
    labels: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for example in examples:
        for name, value in example.labels.items():
            labels[name][value] += 1
        for span in example.spans:
            labels[f"span {span.label}"][1] += 1
    low, middle, high = (int(value) for value in np.quantile(sizes, (0.05, 0.5, 0.95)))
    histogram, _ = np.histogram(sizes, BINS)
    return SplitFigures(
        examples=len(examples),
        sources=len({example.source for example in examples}),
        characters=int(sizes.sum()),
        quantiles=(low, middle, high),
        lengths=tuple(int(value) for value in histogram),
        languages=dict(Counter(example.language for example in examples).most_common()),
        labels={name: (values[0], values[1]) for name, values in sorted(labels.items())},
    )


def _classes(data: Cleaned) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for examples in data.splits.values():
        for example in examples:
            positive = [name for name, value in example.labels.items() if value == 1]
            attack = [name for name in ("injection", "jailbreak") if name in positive]
            known = "ordinary" if example.labels.get("harmful") == 0 else "other"
            abuse = [name for name in positive if name in ("toxicity", "hate", "sexual", "self_harm")]
            found[example.source][(attack or abuse[:1] or positive[:1] or [known])[0]] += 1
    return dict(found)


def overlaps(manifest: Manifest, root: Path, seed: int, shown: float = 0.01) -> list[Overlap]:
    """Pairs of sets of which at least `shown` of one's texts share a run of eight words with the other's."""
    hashes: dict[str, list[np.ndarray]] = {}
    sets: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for task in TASKS:
        for source in manifest.of(task):
            if task != source.tasks[0]:
                continue
            examples = load_source(source, task, root, seed)
            step = max(1, len(examples) // _SAMPLE)
            texts = [words(f"{example.text} {example.pair or ''}") for example in examples[::step][:_SAMPLE]]
            long = [text for text in texts if len(text) >= Sequences.SIZE]
            hashes[source.name] = [shingles(text, Sequences.SIZE) for text in long]
            sizes[source.name] = len(texts)
            sets[source.name] = source.path
    shared = _shared(hashes)
    found = []
    for name, texts_of in hashes.items():
        met: Counter[str] = Counter()
        for own in texts_of:
            others = {other for value in own.tolist() if value in shared for other in shared[value]}
            met.update(other for other in others if sets[other] != sets[name])
        for other, number in met.items():
            if number / sizes[name] >= shown:
                crosses = manifest.sources[name].split != manifest.sources[other].split
                found.append(Overlap(name, other, number / sizes[name], crosses))
    return sorted(found, key=lambda pair: (-pair.share, pair.source, pair.other))


def _shared(hashes: Mapping[str, Sequence[np.ndarray]]) -> dict[int, set[str]]:
    """The runs that more than one source has, and which."""
    own = {name: np.unique(np.concatenate(rows)) for name, rows in hashes.items() if rows}
    every, counts = np.unique(np.concatenate(list(own.values())), return_counts=True)
    common = every[counts > 1]
    result: dict[int, set[str]] = defaultdict(set)
    for name, values in own.items():
        for value in np.intersect1d(values, common, assume_unique=True).tolist():
            result[value].add(name)
    return result
