"""Hits and wrong hits of the semantic cache at a threshold, and the threshold that keeps wrong hits rare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.benchmarks.semantic.sets import Asked, QuestionSet
from tests.benchmarks.semantic.twins import KINDS, twins

from penstock.embeddings.background import Embeds
from penstock_inference.caching.guard import guard_of

Guarding = Callable[[str], Any]
GUARDS: dict[str, Guarding] = {
    "none": lambda text: None,
    "numbers and placeholders": lambda text: guard_of(text)[:2],
    "and names": lambda text: guard_of(text)[:3],
    "and negations": guard_of,
}
WHOLE = "and negations"
MOST_WRONG = 0.01
"""Of all hits, on the questions that the threshold is chosen by."""
THRESHOLDS = [round(0.5 + 0.01 * step, 2) for step in range(50)]


@dataclass(frozen=True)
class Rates:
    """`hit`: right hits among the questions that have one kept; `wrong`: of all hits; `misled`: of all questions."""

    hit: float
    wrong: float
    misled: float
    hits: int


@dataclass(frozen=True)
class Nearest:
    """For each question: the cosine of the nearest kept one, and whether that means the same."""

    cosines: NDArray[np.float32]
    right: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    """Whether anything of its meaning is kept."""

    def at(self, threshold: float) -> Rates:
        """The rates at a threshold."""
        hits = self.cosines >= threshold
        right = int((hits & self.right).sum())
        wrong = int((hits & ~self.right).sum())
        total = right + wrong
        return Rates(
            right / max(1, int(self.kept.sum())), wrong / total if total else 0.0, wrong / max(1, len(hits)), total
        )


def nearest(encoder: Embeds, kept: Sequence[Asked], asked: Sequence[Asked], guarding: Guarding) -> Nearest:
    """Look each question up among those kept whose guard is the same."""
    rows, probes = (encoder.embed([each.text for each in questions]) for questions in (kept, asked))
    cosines = probes @ rows.T
    of_kept, of_asked = ([guarding(each.text) for each in questions] for questions in (kept, asked))
    number = {guard: place for place, guard in enumerate(dict.fromkeys([*of_kept, *of_asked]))}
    same = np.array([number[each] for each in of_asked])[:, None] == np.array([number[each] for each in of_kept])
    cosines = np.where(same, cosines, -1.0)
    best = cosines.argmax(axis=1)
    meanings = {each.meaning for each in kept}
    return Nearest(
        cosines[np.arange(len(asked)), best],
        np.array([kept[place].meaning == each.meaning for place, each in zip(best, asked, strict=True)]),
        np.array([each.meaning in meanings for each in asked]),
    )


def choose(found: Sequence[Nearest]) -> float:
    """The lowest threshold from which on wrong hits are rare, on the sets together; above all where none is."""
    together = Nearest(
        *(np.concatenate([getattr(each, name) for each in found]) for name in ("cosines", "right", "kept"))
    )
    chosen = THRESHOLDS[-1] + 0.01
    for threshold in reversed(THRESHOLDS):
        if together.at(threshold).wrong > MOST_WRONG:
            break
        chosen = threshold
    return chosen


def fooled(encoder: Embeds, sets: Sequence[QuestionSet], threshold: float, guarding: Guarding) -> dict[str, float]:
    """The share of twins that would be given their twin's answer, by kind."""
    texts = sorted({each.text for questions in sets for each in questions.kept})
    shares = {}
    for kind, pairs in zip(KINDS, (twins(texts)[kind] for kind in KINDS), strict=True):
        one, other = (encoder.embed([pair[side] for pair in pairs]) for side in (0, 1))
        cosines = (one * other).sum(axis=1)
        same = np.array([guarding(a) == guarding(b) for a, b in pairs], np.bool_)
        shares[kind] = float(((cosines >= threshold) & same).mean()) if pairs else 0.0
    return shares
