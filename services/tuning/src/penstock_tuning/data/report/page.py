"""The page of the report, in Markdown, and its plots beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from penstock_tuning.data.cleaning import REASONS
from penstock_tuning.data.example import LANGUAGES, SPLITS, TASKS
from penstock_tuning.data.manifest import Manifest
from penstock_tuning.data.report.figures import BINS, Figures
from penstock_tuning.data.report.plots import bars

PLOTS = ("data-sources", "data-lengths", "data-languages")
_CLASSES = ("ordinary", "injection", "jailbreak", "harmful", "toxicity", "hate", "sexual", "other")
_OVERLAPS, _SUSPECTS = 30, 25
_FEWEST = 50


def write(figures: Figures, manifest: Manifest, seed: int, out: Path) -> list[Path]:
    """Write the page and `data-*.svg` beside it; the paths written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    plots = [out.parent / f"{name}.svg" for name in PLOTS]
    _plot(figures, plots)
    out.write_text("\n".join(_page(figures, manifest, seed)) + "\n", "utf-8")
    return [out, *plots]


def _plot(figures: Figures, paths: Sequence[Path]) -> None:
    rows = sorted(figures.classes.items(), key=lambda item: -sum(item[1].values()))
    known = [(name, {key if key in _CLASSES else "other": 0 for key in counts}) for name, counts in rows]
    for (_, merged), (_, counts) in zip(known, rows, strict=True):
        for key, value in counts.items():
            merged[key if key in _CLASSES else "other"] += value
    bars(paths[0], "Safety: rows of each source after cleaning, all splits", known, _CLASSES)
    names = [f"{low:,}-{high - 1:,}" for low, high in pairwise(BINS)]
    lengths = [
        (f"{task} {name}", {task: figures.splits[task]["train"].lengths[index]})
        for task in TASKS
        for index, name in enumerate(names)
    ]
    bars(paths[1], "Train: rows by characters of the text", lengths, TASKS)
    languages = [
        (f"{task} {split}", _by_language(figures.splits[task][split].languages)) for task in TASKS for split in SPLITS
    ]
    bars(paths[2], "Rows by language", languages, (*LANGUAGES, "others"))


def _by_language(counts: Mapping[str, int]) -> dict[str, float]:
    found = {language: float(counts.get(language, 0)) for language in LANGUAGES}
    return {**found, "others": float(sum(counts.values())) - sum(found.values())}


def _page(figures: Figures, manifest: Manifest, seed: int) -> Iterable[str]:
    yield "# The training data"
    yield ""
    yield f"Written by `penstock tune data report` (seed {seed}); how the data is made: [training](../tuning.md)."
    yield ""
    yield "## Splits"
    yield ""
    yield from _splits(figures)
    yield ""
    yield "![Rows of each source](data-sources.svg)"
    yield ""
    yield "![Rows by length](data-lengths.svg)"
    yield ""
    yield "![Rows by language](data-languages.svg)"
    yield ""
    yield "## Labels"
    yield ""
    yield "A row counts for a label only where its source says something of it; for spans, their number."
    yield ""
    yield from _labels(figures)
    yield ""
    yield "## Sources and what cleaning removed"
    yield ""
    yield "Of the rows that were read (after caps), for the first task of each source."
    yield ""
    yield from _sources(figures, manifest)
    yield ""
    yield "## Overlaps between sets"
    yield ""
    yield (
        "The share of texts of a source that share eight words in a row with another set, before cleaning; the "
        f"{_OVERLAPS} largest. What crosses the split is removed from the training side."
    )
    yield ""
    yield from _overlaps(figures)
    yield ""
    yield "## Label noise"
    yield ""
    yield (
        "Five-fold cross-validation of a linear model on hashed words and word pairs over the training split; rows of "
        "one document or template are in one fold. A row is suspect where the model gives its label less than 0.05. "
        "That finds wrong labels and hard examples alike: it says where to look."
    )
    yield ""
    yield from _noise(figures)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 1) -> Iterable[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" if at < numbers else "---:" for at in range(len(head))) + " |"
    for row in rows:
        yield "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) + " |"


def _splits(figures: Figures) -> Iterable[str]:
    rows = []
    for task in TASKS:
        for split in SPLITS:
            own = figures.splits[task][split]
            shares = ", ".join(f"{name} {number:,}" for name, number in list(own.languages.items())[:6])
            low, middle, high = own.quantiles
            size = f"{own.characters / 1e6:.1f}"
            rows.append((task, split, shares, own.sources, own.examples, size, f"{low} / {middle} / {high}"))
    head = ("task", "split", "languages", "sources", "rows", "M characters", "length at 5 / 50 / 95 %")
    yield from _table(head, rows, 3)


def _labels(figures: Figures) -> Iterable[str]:
    rows: list[Sequence[object]] = []
    for task in TASKS:
        names = sorted({name for split in SPLITS for name in figures.splits[task][split].labels})
        for name in names:
            cells: list[object] = []
            for split in SPLITS:
                negative, positive = figures.splits[task][split].labels.get(name, (0, 0))
                cells.append(f"{positive:,}" if name.startswith("span ") else f"{positive:,} / {negative:,}")
            rows.append((task, name, *cells))
    yield from _table(("task", "label", *(f"{split}: 1 / 0" for split in SPLITS)), rows, 2)


def _sources(figures: Figures, manifest: Manifest) -> Iterable[str]:
    rows = []
    for name in sorted(manifest.sources, key=lambda name: (manifest.sources[name].tasks[0], name)):
        source = manifest.sources[name]
        counts = figures.removed.get(source.tasks[0], {}).get(name)
        if counts is not None:
            cells = [counts[reason] for reason in REASONS]
            rows.append((name, source.tasks[0], source.split, source.kind, source.licence, *cells))
    for task, sources in figures.removed.items():
        for name, counts in sources.items():
            if name not in manifest.sources:
                rows.append((name, task, "all", "generated", "-", *(counts[reason] for reason in REASONS)))
    yield from _table(("source", "task", "split", "kind", "licence", *REASONS), rows, 5)


def _overlaps(figures: Figures) -> Iterable[str]:
    rows = [
        (pair.source, pair.other, "yes" if pair.crosses else "", f"{pair.share:.1%}")
        for pair in figures.overlaps[:_OVERLAPS]
    ]
    yield from _table(("source", "shares with", "crosses the split", "of its texts"), rows, 3)


def _noise(figures: Figures) -> Iterable[str]:
    yield from _table(
        ("label", "positive", "negative", "AUC across folds", "suspect"),
        (
            (
                judged.label,
                judged.positive,
                judged.negative,
                f"{judged.auc:.3f}",
                f"{sum(cell.suspect for cell in judged.noise) / (judged.positive + judged.negative):.1%}",
            )
            for judged in figures.noise
        ),
    )
    yield ""
    yield f"The {_SUSPECTS} sources with the largest share, of {_FEWEST} rows and more:"
    yield ""
    cells = [cell for judged in figures.noise for cell in judged.noise if cell.rows >= _FEWEST and cell.suspect]
    cells.sort(key=lambda cell: (-cell.suspect / cell.rows, cell.source, cell.label))
    yield from _table(
        ("source", "label", "said to be", "rows", "suspect"),
        (
            (cell.source, cell.label, str(cell.value), cell.rows, f"{cell.suspect / cell.rows:.1%}")
            for cell in cells[:_SUSPECTS]
        ),
        3,
    )
