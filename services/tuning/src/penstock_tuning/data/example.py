"""The examples that training reads, and the label names.

A label that is absent from `labels` is unknown: the source says nothing of it, and no loss may be taken on it. The
same holds for spans: outside the marked spans a token is negative only for the labels in `covers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.heads.spans import Span

LANGUAGES = ("en", "de", "fr", "es", "it", "pt")
TASKS = ("safety", "pii", "entailment", "similarity", "text")
RESOURCE = "resource"
"""The task of lists that text is generated from; nothing is built for it."""
SPLITS = ("train", "validation", "test")

HARM = (
    "harm_violence",
    "harm_weapons",
    "harm_crime",
    "harm_cyber",
    "harm_fraud",
    "harm_privacy",
    "harm_exploitation",
    "harm_deception",
    "harm_property",
    "harm_advice",
)
"""Categories of harmful requests; `hate`, `sexual` and `self_harm` are labels of their own besides."""
SAFETY = ("injection", "jailbreak", "harmful", "toxicity", "hate", "sexual", "self_harm", *HARM)
PII = ("PERSON", "LOCATION", "ORGANIZATION", "ADDRESS", "DATE_OF_BIRTH")
ENTAILMENT = ("entailed",)
SIMILARITY = ("similar",)
LABELS: dict[str, tuple[str, ...]] = {
    "safety": SAFETY,
    "pii": PII,
    "entailment": ENTAILMENT,
    "similarity": SIMILARITY,
    "text": (),
    RESOURCE: (),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One text, or a text and its pair, with what is known of it.

    `text` is what is classified: for entailment the response (with `pair` its context), for similarity one side.
    `document` and `template` are keys: rows that share one belong on the same side of every split.
    `weight` balances classes and sources and averages 1 over a split.
    """

    text: str
    source: str
    kind: str
    language: str
    pair: str | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    covers: tuple[str, ...] = ()
    document: str = ""
    template: str = ""
    augmented: str = ""
    weight: float = 1.0

    def label(self, name: str) -> int | None:
        """What is known of a label: 0, 1, or None. A request that is not harmful is so in no category."""
        known = self.labels.get(name)
        if known is None and name in HARM and self.labels.get("harmful") == 0:
            return 0
        return known

    def to_json(self) -> str:
        """One line; empty fields are left out, keys are in a fixed order."""
        row: dict[str, Any] = {"text": self.text}
        if self.pair is not None:
            row["pair"] = self.pair
        if self.labels:
            row["labels"] = {name: self.labels[name] for name in sorted(self.labels)}
        if self.spans:
            row["spans"] = [[span.start, span.end, span.label] for span in self.spans]
        if self.covers:
            row["covers"] = list(self.covers)
        row |= {"source": self.source, "kind": self.kind, "language": self.language}
        for name in ("document", "template", "augmented"):
            value = getattr(self, name)
            if value:
                row[name] = value
        row["weight"] = round(self.weight, 4)
        return json.dumps(row, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Example:
        """The inverse of `to_json`."""
        row = json.loads(line)
        row["spans"] = tuple(Span(*span) for span in row.get("spans", ()))
        row["covers"] = tuple(row.get("covers", ()))
        return cls(**row)


def write_examples(examples: Iterable[Example], path: Path) -> int:
    """Write JSON lines in UTF-8 and return how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for example in examples:
            handle.write(example.to_json())
            handle.write("\n")
            count += 1
    return count


def read_examples(path: Path) -> Iterator[Example]:
    """Yield what `write_examples` wrote, one at a time."""
    with path.open(encoding="utf-8", newline="\n") as handle:
        for line in handle:
            yield Example.from_json(line)
