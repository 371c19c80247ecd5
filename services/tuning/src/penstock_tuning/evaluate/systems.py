"""What is measured: a folder of heads, or a baseline, each as the same few functions from texts to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.contracts.errors import ConfigurationError
from penstock.heads.spans import Span
from penstock_tuning.data.example import Example
from penstock_tuning.evaluate.errors import ModelFolderError

Scores = NDArray[np.float32]
Texts = Sequence[str]


class System(Protocol):
    """Something that does the tasks. Lists have the length of what was given, in its order."""

    @property
    def flag(self) -> Mapping[str, float]:
        """The default threshold of each safety label, and that of `entailed`."""

    def safety(self, texts: Texts) -> Scores:
        """Probabilities `[texts, len(SAFETY)]`, columns in the order of `SAFETY`; NaN for a label it does not have."""

    def names(self, texts: Texts) -> list[list[Span]]:
        """The names found in each text, in code points."""

    def similarity(self, texts: Texts, others: Texts) -> Scores:
        """How alike each text is to its other: any scale, higher is more."""

    def entailment(self, responses: Texts, evidence: Texts) -> Scores:
        """How likely it is that each response follows from its evidence."""


@dataclass(frozen=True)
class Answers:
    """What a system said of the rows of the four tasks."""

    flag: Mapping[str, float]
    safety: Scores
    names: list[list[Span]]
    similarity: Scores
    entailment: Scores


@dataclass(frozen=True)
class Rows:
    """The held-out rows of each task."""

    safety: Sequence[Example]
    names: Sequence[Example]
    similarity: Sequence[Example]
    entailment: Sequence[Example]


def ask(system: System, rows: Rows) -> Answers:
    """Let a system answer everything once."""
    similar, entailed = (
        ([row.text for row in own], [row.pair or "" for row in own]) for own in (rows.similarity, rows.entailment)
    )
    return Answers(
        system.flag,
        system.safety([row.text for row in rows.safety]),
        system.names([row.text for row in rows.names]),
        system.similarity(*similar),
        system.entailment(*entailed),
    )


class HeadsFolder:
    """A finished folder of heads, run as the services run it."""

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            ModelFolderError: it is not one; the message says what it lacks.
        """
        from penstock.heads.runtime import Heads

        try:
            self._heads = Heads(folder, needs=("safety", "pii", "entailment", "similarity"))
        except ConfigurationError as error:
            raise ModelFolderError(f"{error.message}; make a folder with `penstock tune heads`") from error
        entailment = self._heads.config.entailment
        self.flag = dict(zip(self._heads.labels, map(float, self._heads.flag), strict=True)) | {
            label: found.flag for label, found in (entailment.thresholds if entailment else {}).items()
        }

    def safety(self, texts: Texts) -> Scores:
        """As `System.safety`."""
        return self._heads.safety(texts)

    def names(self, texts: Texts) -> list[list[Span]]:
        """As `System.names`."""
        return self._heads.pii(texts)

    def similarity(self, texts: Texts, others: Texts) -> Scores:
        """The cosine of the embeddings."""
        one, other = self._heads.embed(texts), self._heads.embed(others)
        cosines: Scores = (one * other).sum(axis=1)
        return cosines

    def entailment(self, responses: Texts, evidence: Texts) -> Scores:
        """As `System.entailment`."""
        return self._heads.entailment(responses, evidence)


def megabytes(folder: Path) -> float:
    """Of the graph, in millions of bytes."""
    return round((folder / "model.onnx").stat().st_size / 1e6, 2)
