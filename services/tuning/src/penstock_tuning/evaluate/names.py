"""Figures of names in texts: F1 of spans whose bounds and label are exactly those marked.

A label counts in a text only where its source marks every occurrence of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from penstock_tuning.data.example import PII, Example
from penstock_tuning.data.people.generate import SOURCE as GENERATED
from penstock_tuning.evaluate.figures import Figure, Of, Sheet, by_group
from penstock_tuning.evaluate.metrics import Bools, Floats, Statistic, f1, span_counts
from penstock_tuning.evaluate.systems import Answers

PERSON = "PERSON"


def figures(rows: Sequence[Example], answers: Mapping[str, Answers], sheet: Sheet) -> Iterator[Figure]:
    """F1 of persons' names by source, then of each label by source, then of all labels together."""
    sources = [row.source for row in rows]
    counts = {name: _counts(rows, own) for name, own in answers.items()}
    for label in PII:
        covered = np.array([label in row.covers for row in rows], np.bool_)
        own: dict[str, Of] = {name: _f1(one[label]) for name, one in counts.items()}
        metric = "pii_name_f1" if label == PERSON else f"pii_{label.lower()}_f1"
        yield from by_group(sheet, sources, metric, covered, own, apart=(GENERATED,))
    every = np.ones(len(rows), np.bool_)
    together = {name: _f1(sum(one.values(), np.zeros((len(rows), 3)))) for name, one in counts.items()}
    yield from by_group(sheet, sources, "pii_f1", every, together, apart=(GENERATED,))
    languages = [row.language for row in rows]
    person: dict[str, Of] = {name: _f1(one[PERSON]) for name, one in counts.items()}
    covered = np.array([PERSON in row.covers for row in rows], np.bool_)
    yield from by_group(sheet, languages, "pii_name_f1", covered, person, together=False)


def _counts(rows: Sequence[Example], answers: Answers) -> dict[str, Floats]:
    """By label `[rows, 3]`: spans right, said, wanted; 0 where the label is not covered."""
    return {
        label: np.array(
            [
                span_counts(found, row.spans, label) if label in row.covers else (0, 0, 0)
                for row, found in zip(rows, answers.names, strict=True)
            ],
            np.float64,
        )
        for label in PII
    }


def _f1(counts: Floats) -> Of:
    def of(among: Bools) -> Statistic:
        right, said, wanted = (counts * among[:, None]).T
        return f1(right, said, wanted)

    return of
