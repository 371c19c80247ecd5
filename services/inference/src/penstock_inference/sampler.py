"""Logits to a token: what is allowed, penalties, temperature, top-k, top-p, min-p, in this order; greedy at 0.

A sampler belongs to one request and draws from its own generator exactly once for each token, so a
request's text depends on its seed alone and on nothing that shares its batch.

Penalties are those of the OpenAI API (presence, frequency: of the answer so far) and of CTRL (repetition: of
prompt and answer, arXiv 1909.05858); min-p is that of arXiv 2407.01082.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from penstock.contracts.events import GenerationParameters

Logits = npt.NDArray[np.float32]

Ids = npt.NDArray[np.intp]

_SEED_SPACE = 2**64
_FIRST_CANDIDATES = (64, 1024)
_BLOCK = 64
"""Of neighbouring ids, which are compared or added up together: most of a large vocabulary is looked at once."""
_SHARPEST = 3e38
"""1 / temperature, at most: the likeliest token alone is left by then."""


def resolve_seed(seed: int | None, request_id: str) -> int:
    """A seed in 0..2**64-1: the request's own, else one derived from its id, so that a replay agrees."""
    if seed is not None:
        return seed % _SEED_SPACE
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")


def seed_of(seed: int, answer: int) -> int:
    """The seed of one of a request's answers: the request's own for the first."""
    if answer == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{answer}".encode()).digest()[:8], "big")


class Constraint(Protocol):
    """What an answer may be, token by token."""

    @property
    def complete(self) -> bool:
        """Whether nothing may follow."""
        ...

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next: [vocabulary], at least one of them."""
        ...

    def allows(self, token: int) -> bool:
        """Whether a token may come next: cheaper than `allowed`, which says so of all."""
        ...

    def accept(self, token: int) -> None:
        """The token that was chosen, one of those allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token's id, the logarithm of its probability by the bare model, and the likeliest ids in its place."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


class Sampler:
    """One request's choice of tokens; `chosen` has their likelihoods where the request asks for them."""

    def __init__(
        self,
        parameters: GenerationParameters,
        seed: int,
        prompt: Sequence[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        self._parameters = parameters
        self._constraint = constraint
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._scratch: Logits | None = None
        self._answer: Counter[int] = Counter()
        self._prompt = np.unique(np.asarray(prompt, dtype=np.intp))
        self.chosen: list[Chosen] | None = None if parameters.logprobs is None else []

    @property
    def complete(self) -> bool:
        """Whether the answer is all that it may be."""
        return self._constraint is not None and self._constraint.complete

    def choose(self, logits: Logits) -> int:
        """The next token's id from logits of shape [vocabulary]; ties go to the lowest id."""
        scores = self._penalized(logits)
        token = self._pick(scores) if self._constraint is None else self._held(scores, self._constraint)
        if self.chosen is not None:
            self.chosen.append(_likelihood(logits, token, self._parameters.logprobs or 0))
        self._answer[token] += 1
        return token

    def _held(self, scores: Logits, constraint: Constraint) -> int:
        """The next token among those that the constraint allows."""
        best = int(np.argmax(scores))
        if self._parameters.temperature > 0.0 or not constraint.allows(best):
            best = self._pick(np.where(constraint.allowed(), scores, np.float32(-np.inf)))
        constraint.accept(best)
        return best

    def _pick(self, scores: Logits) -> int:
        parameters = self._parameters
        if parameters.temperature == 0.0:
            return int(np.argmax(scores))
        draw = self._random.random()
        ids: Ids | None = None
        if parameters.top_k is not None and parameters.top_k < len(scores):
            ids = _highest(scores, parameters.top_k)
            scores = scores[ids]
        if self._scratch is None or len(self._scratch) != len(scores):
            # kept: the pages of so large a new array cost more than what is computed in it
            self._scratch = np.empty_like(scores)
        weights = _weights(scores, parameters.temperature, self._scratch)
        # of the likeliest token's weight, which is 1
        likely = weights * (weights >= parameters.min_p) if parameters.min_p else weights
        if parameters.top_p < 1.0:
            nucleus = _nucleus(scores, weights, parameters.top_p)
            likely = likely[nucleus]
            ids = nucleus if ids is None else ids[nucleus]
        drawn = _draw(likely, draw)
        return drawn if ids is None else int(ids[drawn])

    def _penalized(self, logits: Logits) -> Logits:
        parameters = self._parameters
        repetition = parameters.repetition_penalty or 1.0
        presence, frequency = parameters.presence_penalty or 0.0, parameters.frequency_penalty or 0.0
        if repetition == 1.0 and not presence and not frequency:
            return logits
        scores = logits.copy()
        answer = np.fromiter(self._answer.keys(), np.intp, len(self._answer))
        if repetition != 1.0:
            seen = np.union1d(self._prompt, answer)
            values = scores[seen]
            scores[seen] = np.where(values > 0, values / repetition, values * repetition)
        counts = np.fromiter(self._answer.values(), np.float32, len(self._answer))
        scores[answer] -= (presence + frequency * counts).astype(np.float32)
        return scores


def _likelihood(logits: Logits, token: int, count: int) -> Chosen:
    """Ids by falling likelihood, equals in the order of their ids."""
    best = float(logits.max())
    whole = best + float(np.log(_weights(logits, 1.0).sum(dtype=np.float64)))
    likeliest = _highest(logits, min(count, len(logits))) if count else np.arange(0)
    likeliest = likeliest[np.argsort(-logits[likeliest], kind="stable")]
    return Chosen(
        token, float(logits[token]) - whole, tuple((int(each), float(logits[each]) - whole) for each in likeliest)
    )


def _weights(scores: Logits, temperature: float, out: Logits | None = None) -> Logits:
    """Proportional to the probabilities, 1 for the likeliest; in `out`, where that is given."""
    with np.errstate(over="ignore"):  # what is so far below the best has no weight
        out = np.subtract(scores, scores.max(), out=out)
        out *= np.float32(min(1.0 / temperature, _SHARPEST))
    return np.exp(out, out=out)


def _highest(scores: Logits, count: int) -> Ids:
    """The ids of the `count` highest scores, rising; of equals the lowest ids. `count` is in 1..len(scores)."""
    ids = _candidates(scores, count)
    values = scores[ids]
    least = np.partition(values, -count)[-count]
    missing = count - int(np.count_nonzero(values > least))
    kept = values > least
    kept[np.flatnonzero(values == least)[:missing]] = True
    highest: Ids = ids[kept]
    return highest


def _candidates(scores: Logits, count: int) -> Ids:
    """Ids, rising, among which are those of the `count` highest scores and all equals of the last.

    So many blocks have a score not below the `count`-th highest of the blocks' highest: no fewer than `count` scores.
    """
    peaks = np.maximum.reduceat(scores, np.arange(0, len(scores), _BLOCK))
    if count > len(peaks):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(peaks, -count)[-count])


def _nucleus(scores: Logits, weights: Logits, top_p: float) -> Ids:
    """The fewest ids, rising, whose weights reach `top_p` of the whole, the likeliest first; at least one.

    Sorting a whole vocabulary costs more than a small model's forward pass, so the likeliest few are tried first.
    """
    wanted = top_p * weights.sum(dtype=np.float64)
    for count in (*_FIRST_CANDIDATES, len(scores)):
        ids = _candidates(scores, min(count, len(scores)))
        cumulative = np.cumsum(np.sort(weights[ids])[::-1], dtype=np.float64)
        if cumulative[-1] >= wanted:
            break
    return _highest(scores, min(int(np.searchsorted(cumulative, wanted)) + 1, len(cumulative)))


def _draw(weights: Logits, draw: float) -> int:
    """Inverse transform sampling: the index at which the cumulative weight passes `draw` in [0, 1)."""
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)), dtype=np.float64)
    passed = draw * sums[-1]
    block = int(np.searchsorted(sums, passed, side="right"))
    if block == len(sums):  # rounded up to the very end
        return int(np.flatnonzero(weights)[-1])
    begin = block * _BLOCK
    cumulative = np.cumsum(weights[begin : begin + _BLOCK], dtype=np.float64)
    found = int(np.searchsorted(cumulative, passed - (sums[block - 1] if block else 0.0), side="right"))
    # rounded up to the block's end, it is the last one of any weight in it
    return begin + (found if found < len(cumulative) else int(np.flatnonzero(cumulative == cumulative[-1])[0]))
