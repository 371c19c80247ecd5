"""Baselines for pairs of texts: cosine of n-grams weighted by rarity, and overlap of words, numbers and negations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union
from sklearn.preprocessing import StandardScaler, normalize

from penstock_tuning.data.example import Example
from penstock_tuning.data.similar import words
from penstock_tuning.evaluate.metrics import Bools, Floats, balanced_accuracy
from penstock_tuning.evaluate.systems import Scores

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATIONS = frozenset(
    [
        "not",
        "no",
        "never",
        "none",
        "nothing",
        "neither",
        "nor",
        "without",
        "cannot",
        "n",
        "t",
        "nicht",
        "kein",
        "keine",
        "nie",
        "ne",
        "pas",
        "non",
    ]
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class NGramCosine:
    """Words and character n-grams, hashed and weighted by how rare they are in the training texts (tf-idf)."""

    rarity: Floats
    """`[features]`."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> NGramCosine:
        """Count in these texts."""
        return cls(TfidfTransformer().fit(_counts(texts)).idf_)

    def __call__(self, texts: Sequence[str], others: Sequence[str]) -> Scores:
        """The cosine of each pair."""
        one, other = (normalize(_counts(side).multiply(self.rarity).tocsr()) for side in (texts, others))
        cosines: Scores = np.asarray(one.multiply(other).sum(axis=1), np.float32).ravel()
        return cosines


def _counts(texts: Sequence[str]) -> Any:
    """`[texts, features]`, sparse."""
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), n_features=1 << 18, norm=None)
    whole = HashingVectorizer(n_features=1 << 18, norm=None)
    return make_union(characters, whole).transform(texts)


@dataclass(frozen=True)
class Overlap:
    """Logistic regression over how much of a response stands in its evidence."""

    middle: Floats
    weights: Floats
    bias: float
    threshold: float

    @classmethod
    def of(cls, train: Sequence[Example], chosen_by: Sequence[Example]) -> Overlap:
        """Train, and choose the threshold of the highest balanced accuracy on rows of other sources."""
        scaler, model = StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=300)
        given = scaler.fit_transform(_features(train))
        model.fit(given, _entailed(train), sample_weight=[row.weight for row in train])
        made = cls(scaler.mean_, model.coef_[0] / scaler.scale_, float(model.intercept_[0]), 0.5)
        wanted = _entailed(chosen_by)
        if not wanted.any() or wanted.all():
            return made
        scores = made._probabilities(_features(chosen_by))
        levels = np.quantile(scores, np.linspace(0.02, 0.98, 49))
        every = np.ones(len(wanted))
        reached = [balanced_accuracy(scores >= level, wanted, ~wanted)(every) for level in levels]
        return replace(made, threshold=float(levels[int(np.argmax(reached))]))

    def __call__(self, responses: Sequence[str], evidence: Sequence[str]) -> Scores:
        """Probabilities."""
        return self._probabilities(overlaps(responses, evidence))

    def _probabilities(self, given: Floats) -> Scores:
        logits = (given - self.middle) @ self.weights + self.bias
        found: Scores = (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)
        return found


def _features(rows: Sequence[Example]) -> Floats:
    return overlaps([row.text for row in rows], [row.pair or "" for row in rows])


def _entailed(rows: Sequence[Example]) -> Bools:
    return np.array([row.labels["entailed"] == 1 for row in rows], np.bool_)


def save(cosine: NGramCosine, overlap: Overlap, path: Path) -> None:
    """Write both as one .npz file."""
    np.savez_compressed(path, rarity=cosine.rarity, **asdict(overlap))


def load(path: Path) -> tuple[NGramCosine, Overlap]:
    """The inverse of `save`."""
    with np.load(path) as stored:
        overlap = Overlap(stored["middle"], stored["weights"], float(stored["bias"]), float(stored["threshold"]))
        return NGramCosine(stored["rarity"]), overlap


def overlaps(responses: Sequence[str], evidence: Sequence[str]) -> Floats:
    """Features of each pair, `[pairs, 11]`."""
    return np.array([_overlap(one, other) for one, other in zip(responses, evidence, strict=True)], np.float64)


def _overlap(response: str, evidence: str) -> list[float]:
    own, given = words(response), words(evidence)
    sentences = [set(words(sentence)) for sentence in _SENTENCE.split(evidence)] or [set()]
    distinct = set(own)
    long = {word for word in distinct if len(word) > 3}
    pairs, given_pairs = (set(pairwise(side)) for side in (own, given))
    triples, given_triples = (_trigrams(text) for text in (response, evidence))
    numbers, given_numbers = (set(_NUMBER.findall(text)) for text in (response, evidence))
    names, given_names = (set(re.findall(r"(?<=\w )[A-Z]\w+", text)) for text in (response, evidence))
    negated, given_negated = (len(_NEGATIONS & set(side)) for side in (own, given))
    return [
        _share(distinct, set(given)),
        _share(long, set(given)),
        max(_share(distinct, sentence) for sentence in sentences),
        _share(pairs, given_pairs),
        _share(triples, given_triples),
        _share(numbers, given_numbers) if numbers else 1.0,
        _share(names, given_names | set(re.findall(r"\w+", evidence))) if names else 1.0,
        float(len(numbers - given_numbers)),
        float(negated > 0) - float(given_negated > 0),
        float(np.log1p(len(own))),
        float(np.log1p(len(given))),
    ]


def _trigrams(text: str) -> set[str]:
    folded = " ".join(words(text))
    return {folded[start : start + 3] for start in range(len(folded) - 2)}


def _share(own: set[Any], given: set[Any]) -> float:
    return len(own & given) / len(own) if own else 0.0
