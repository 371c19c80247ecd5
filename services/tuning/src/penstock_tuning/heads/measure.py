"""A graph of heads on the texts kept apart: what calibration, thresholds and the check of int8 are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.heads.runtime import Heads
from penstock_tuning.data.example import PII, SAFETY, Example
from penstock_tuning.heads.calibrate import (
    Calibrated,
    Floats,
    Platt,
    auc,
    best_f1,
    by_source,
    fit_platt,
    fit_temperature,
    logit,
    thresholds,
)
from penstock_tuning.heads.config import Calibration, Task
from penstock_tuning.heads.errors import HeadsRejectedError

_ORDINARY = ("injection", "jailbreak", "harmful", "toxicity")
_NAMES = {"PERSON", "LOCATION", "ORGANIZATION"}
_SHIFT = 7
"""How far pairs are moved along to make pairs that do not belong together."""


@dataclass(frozen=True)
class Scores:
    """What a graph says of the texts kept apart; a task that is not there has no texts."""

    safety: Floats
    """`[texts, labels]` probabilities."""
    tags: list[Floats]
    """For each text `[tokens, classes]`."""
    classes: list[NDArray[np.int64]]
    """For each text the right class of each token, -1 where it is unknown."""
    entailment: Floats
    """`[pairs]`."""
    cosines: Floats
    """`[pairs and pairs that do not belong together]`."""
    similar: NDArray[np.int64]
    """The same: 1 or 0."""


def score(heads: Heads, texts: Mapping[Task, Sequence[Example]]) -> Scores:
    """Run the graph over all texts kept apart."""
    safety = texts.get("safety", ())
    found = heads.safety([one.text for one in safety]) if safety else np.zeros((0, len(SAFETY)))
    tags, classes = [], []
    pii = texts.get("pii", ())
    for example, (offsets, probabilities) in zip(
        pii, heads.tags([one.text for one in pii]) if pii else (), strict=True
    ):
        tags.append(probabilities.astype(np.float64))
        classes.append(_classes(example, offsets))
    pairs = texts.get("entailment", ())
    follows = heads.entailment([one.text for one in pairs], [one.pair or "" for one in pairs]) if pairs else np.zeros(0)
    cosines, similar = _cosines(heads, texts.get("similarity", ()))
    return Scores(np.asarray(found, np.float64), tags, classes, np.asarray(follows, np.float64), cosines, similar)


def fit(scores: Scores, texts: Mapping[Task, Sequence[Example]]) -> Calibrated:
    """Platt's scaling for each label of texts, a temperature for the classes of tokens."""
    safety = texts.get("safety", ())
    found = [_platt(scores.safety[:, column], label, safety) for column, label in enumerate(SAFETY)]
    found.append(_platt(scores.entailment, "entailed", texts.get("entailment", ())))
    if not scores.tags:
        return Calibrated(found)
    classes = np.concatenate(scores.classes)
    known = classes >= 0
    weights = np.repeat(by_source([one.source for one in texts["pii"]]), [len(one) for one in scores.classes])
    logs = np.log(np.clip(np.concatenate(scores.tags)[known], 1e-12, 1.0))
    return Calibrated(found, fit_temperature(logs, classes[known], weights[known]))


def settings(
    scores: Scores, calibrated: Calibrated, texts: Mapping[Task, Sequence[Example]], recipe: Calibration
) -> dict[str, Any]:
    """What `config.json` says of each head: labels, calibration, thresholds. `scores` are calibrated ones."""
    said: dict[str, Any] = {}
    if "safety" in texts:
        flag, block = limits(scores.safety, texts["safety"], recipe)
        said["safety"] = {
            "labels": list(SAFETY),
            "thresholds": {label: {"flag": flag[label], "block": block[label]} for label in SAFETY},
            "calibration": {label: vars(platt) for label, platt in zip(SAFETY, calibrated.pooled, strict=False)},
        }
        said["safety_tokens"] = {"labels": list(SAFETY), "threshold": 0.5}
    if "pii" in texts:
        said["pii"] = {
            "labels": ["O", *PII],
            "thresholds": tag_limits(scores, [one.source for one in texts["pii"]]),
            "calibration": {"temperature": calibrated.temperature},
        }
    if "entailment" in texts:
        said["entailment"] = {
            "labels": ["entailed"],
            "thresholds": {"entailed": {"flag": _entailed_limit(scores, texts["entailment"])}},
            "calibration": {"entailed": vars(calibrated.pooled[-1])},
        }
    if "similarity" in texts:
        said["similarity"] = similarity(scores, recipe.flag_rate)
    return said


def calibrated_scores(scores: Scores, calibrated: Calibrated) -> Scores:
    """What the graph will say once the calibration is folded into it."""
    safety = np.stack(
        [platt(logit(column)) for platt, column in zip(calibrated.pooled, scores.safety.T, strict=False)], axis=1
    )
    tags = []
    for one in scores.tags:
        raised = np.clip(one, 1e-12, 1.0) ** (1 / calibrated.temperature)
        tags.append(raised / raised.sum(1, keepdims=True))
    follows = calibrated.pooled[-1](logit(scores.entailment))
    return Scores(safety, tags, scores.classes, follows, scores.cosines, scores.similar)


def limits(safety: Floats, texts: Sequence[Example], recipe: Calibration) -> tuple[dict[str, float], dict[str, float]]:
    """The thresholds for flagging and for blocking, from the ordinary texts among those kept apart.

    Raises:
        HeadsRejectedError: there are none.
    """
    ordinary = [index for index, one in enumerate(texts) if all(one.label(label) == 0 for label in _ORDINARY)]
    if not ordinary:
        raise HeadsRejectedError("no ordinary text is among the sources kept apart: no threshold can be chosen")
    weights = by_source([texts[index].source for index in ordinary])
    return (
        thresholds(safety[ordinary], weights, SAFETY, recipe.shares, recipe.flag_rate),
        thresholds(safety[ordinary], weights, SAFETY, recipe.shares, recipe.flag_rate * recipe.block_share),
    )


def tag_limits(scores: Scores, sources: Sequence[str]) -> dict[str, float]:
    """For each label the probability of best F1 over tokens, of texts in which the label is complete."""
    weights = np.repeat(by_source(sources), [len(one) for one in scores.classes])
    classes, tags = np.concatenate(scores.classes), np.concatenate(scores.tags)
    known = classes >= 0
    return {
        label: best_f1(tags[known, number], classes[known] == number, weights[known])
        for number, label in enumerate(PII, 1)
    }


def similarity(scores: Scores, rate: float) -> dict[str, Any]:
    """The calibration of cosines, and the cosine that at most `rate` of the pairs that do not belong together reach."""
    platt = _of_cosines(scores.cosines, scores.similar)
    others = np.sort(scores.cosines[scores.similar == 0])
    above = others[min(len(others) - 1, int(np.ceil(len(others) * (1 - rate))))] if len(others) else 1.0
    return {
        "calibration": vars(platt),
        "threshold": round(float(above), 6),
    }


def figures(scores: Scores, texts: Mapping[Task, Sequence[Example]], said: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of the record, on texts kept apart: none is of a test source."""
    found: dict[str, float | None] = {}
    for column, label in enumerate(SAFETY):
        chosen, labels = _known(texts.get("safety", ()), label)
        found[f"{label}_auc"] = auc(scores.safety[chosen, column], labels)
        if bool((labels == 1).any()):
            limit = said["safety"]["thresholds"][label]["flag"]
            found[f"{label}_recall"] = float((scores.safety[chosen, column][labels == 1] >= limit).mean())
    if "pii" in texts:
        for number, label in enumerate(PII, 1):
            found[f"{label}_f1"] = _f1(scores, number, said["pii"]["thresholds"][label])
    chosen, labels = _known(texts.get("entailment", ()), "entailed")
    found["entailment_auc"] = auc(scores.entailment[chosen], labels)
    found["similarity_auc"] = auc(scores.cosines, scores.similar)
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def change(one: Scores, other: Scores) -> dict[str, float]:
    """The mean difference of probabilities between two graphs, by head, and the cosines' of pairs."""
    found = {
        "safety": (one.safety, other.safety),
        "entailment": (one.entailment, other.entailment),
        "similarity": (one.cosines, other.cosines),
        "pii": (np.concatenate([*one.tags, np.zeros((0, 6))]), np.concatenate([*other.tags, np.zeros((0, 6))])),
    }
    return {
        f"int8_change_{name}": round(float(np.abs(first - second).mean()), 5)
        for name, (first, second) in found.items()
        if first.size
    }


def _known(texts: Sequence[Example], label: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    values = [one.label(label) for one in texts]
    chosen = [index for index, value in enumerate(values) if value is not None]
    return np.array(chosen, np.int64), np.array([values[index] for index in chosen], np.int64)


def _platt(probabilities: Floats, label: str, texts: Sequence[Example]) -> Platt:
    chosen, labels = _known(texts, label)
    return fit_platt(logit(probabilities[chosen]), labels, by_source([texts[index].source for index in chosen]))


def _classes(example: Example, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The right class of each token. Outside the marked places it is unknown, -1, unless names at least are complete:
    what such a text has of addresses and dates of birth is too little to count.
    """
    found = np.full(len(offsets), 0 if set(example.covers) >= _NAMES else -1, np.int64)
    begins, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    for span in example.spans:
        if span.label in PII:
            found[(begins < span.end) & (ends > span.start)] = PII.index(span.label) + 1
    return found


def _cosines(heads: Heads, pairs: Sequence[Example]) -> tuple[Floats, NDArray[np.int64]]:
    if not pairs:
        return np.zeros(0), np.zeros(0, np.int64)
    one = heads.embed([example.text for example in pairs]).astype(np.float64)
    other = heads.embed([example.pair or "" for example in pairs]).astype(np.float64)
    labels = np.array([example.labels.get("similar", 0) for example in pairs], np.int64)
    chance = (one * np.roll(other, _SHIFT, axis=0)).sum(1)
    return np.concatenate([(one * other).sum(1), chance]), np.concatenate([labels, np.zeros_like(labels)])


def _of_cosines(cosines: Floats, similar: NDArray[np.int64]) -> Platt:
    """Platt's scaling of cosines, which lie so close that they are spread to the range of logits first."""
    spread = 10.0
    platt = fit_platt(cosines * spread, similar, np.ones(len(cosines)))
    return Platt(platt.scale * spread, platt.bias, platt.positives, platt.negatives)


def _entailed_limit(scores: Scores, texts: Sequence[Example]) -> float:
    """The probability of the best balanced accuracy: as good for responses that follow as for others."""
    chosen, labels = _known(texts, "entailed")
    if len(set(labels.tolist())) < 2:
        return 0.5
    found = scores.entailment[chosen]
    candidates = np.unique(np.round(found, 3))
    quality = [float((found[labels == 1] >= at).mean() + (found[labels == 0] < at).mean()) for at in candidates]
    return float(round(float(candidates[int(np.argmax(quality))]), 4))


def _f1(scores: Scores, number: int, limit: float) -> float | None:
    classes, tags = np.concatenate(scores.classes), np.concatenate(scores.tags)
    wanted, found = classes == number, (tags[:, number] >= limit) & (classes >= 0)
    if not bool(wanted.any()):
        return None
    return 2 * float((wanted & found).sum()) / float(wanted.sum() + found.sum())
