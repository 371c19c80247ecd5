"""From a source's rows to examples: labels from the manifest, cuts, caps. Cleaning across sources is in `cleaning`."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from penstock.heads.spans import Span
from penstock_tuning.data.errors import ManifestError
from penstock_tuning.data.example import LABELS, Example
from penstock_tuning.data.languages import guess_language
from penstock_tuning.data.manifest import Source
from penstock_tuning.data.readers import READERS
from penstock_tuning.data.readers.base import Row

Labelled = tuple[Row, Mapping[str, int]]

_ABSENT: Mapping[str, int] = {}
_BREAK = re.compile(r"\n\s*\n|\n|(?<=[.!?]) ")


def load_source(source: Source, task: str, root: Path, seed: int) -> list[Example]:
    """All examples of one source for one task, in an order that depends on the seed only where a cap draws.

    Raises:
        SourceMissingError: its files are not there.
        ManifestError: it names a reader that does not exist, or a row has a value that its label map lacks.
        RowError: a row is not what the reader expects.
    """
    if source.reader not in READERS:
        raise ManifestError(f"{source.name}: no reader {source.reader}")
    rows = READERS[source.reader](source.paths(root), source.options)
    pieces = [
        (replace(row, text=text, spans=spans), labels)
        for row in rows
        if row.text and (labels := _labels(source, row)) is not None
        for text, spans in cut(row.text, row.spans, source.max_chars, passages=task == "text")
    ]
    # Pretraining takes all there is, unless the source is for nothing else and its cap is meant for it.
    drawn = pieces if task == "text" and len(source.tasks) > 1 else _capped(pieces, source, seed)
    return [
        Example(
            text=row.text,
            pair=row.pair,
            source=source.name,
            kind=source.kind,
            language=_language(row, source),
            labels={name: value for name, value in labels.items() if name in LABELS[task]},
            spans=tuple(span for span in row.spans if span.label in LABELS[task]),
            covers=tuple(label for label in source.covers if label in LABELS[task]),
            document=f"{source.path}/{row.document}",
            template=f"{source.path}/{row.template}" if row.template else "",
        )
        for row, labels in drawn
    ]


def _labels(source: Source, row: Row) -> Mapping[str, int] | None:
    if not source.label_map:
        return source.labels
    own = source.label_map.get(row.value, source.label_map.get("*", _ABSENT))
    if own is _ABSENT:
        raise ManifestError(f"{source.name}: the label map has no {row.value!r} and no '*'")
    return None if own is None else {**source.labels, **own}


def _language(row: Row, source: Source) -> str:
    if row.language:
        return row.language
    return guess_language(row.text) if source.language == "auto" else source.language


def _capped(kept: list[Labelled], source: Source, seed: int) -> list[Labelled]:
    """At most `template_cap` rows of a template and `cap` in all, evenly over the languages and sets of labels."""
    draw = random.Random(f"{seed}:{source.name}")
    if source.template_cap is not None:
        order = draw.sample(range(len(kept)), len(kept))
        used: dict[str, int] = defaultdict(int)
        chosen = []
        for index in order:
            template = kept[index][0].template
            used[template] += 1
            if used[template] <= source.template_cap:
                chosen.append(index)
        kept = [kept[index] for index in sorted(chosen)]
    if source.cap is None or len(kept) <= source.cap:
        return kept
    groups: dict[str, list[int]] = defaultdict(list)
    for index, (row, labels) in enumerate(kept):
        groups[f"{row.language}{sorted(labels.items())}"].append(index)
    left, chosen = source.cap, []
    for position, name in enumerate(sorted(groups, key=lambda name: (len(groups[name]), name))):
        share = min(len(groups[name]), left // (len(groups) - position))
        chosen += draw.sample(groups[name], share)
        left -= share
    return [kept[index] for index in sorted(chosen)]


def cut(
    text: str, spans: tuple[Span, ...], limit: int, passages: bool = False
) -> Iterator[tuple[str, tuple[Span, ...]]]:
    """The text cut to `limit` characters at the last break before; with `passages` all of it in such pieces."""
    start = 0
    while start < len(text):
        end = min(len(text), start + limit)
        if end < len(text):
            breaks = [match.start() for match in _BREAK.finditer(text, start + limit // 2, end)]
            end = breaks[-1] if breaks else end
        inside = tuple(
            Span(span.start - start, span.end - start, span.label)
            for span in spans
            if span.start >= start and span.end <= end
        )
        if text[start:end].strip():
            yield text[start:end], inside
        if not passages:
            return
        while end < len(text) and text[end].isspace():
            end += 1
        start = end
