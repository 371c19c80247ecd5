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

_SEED_SPACE = 2**64
_FIRST_CANDIDATES = (64, 1024)


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
        if self._constraint is not None:
            scores = np.where(self._constraint.allowed(), scores, np.float32(-np.inf))
        token = self._pick(scores)
        if self._constraint is not None:
            self._constraint.accept(token)
        if self.chosen is not None:
            self.chosen.append(_likelihood(logits, token, self._parameters.logprobs or 0))
        self._answer[token] += 1
        return token

    def _pick(self, scores: Logits) -> int:
        parameters = self._parameters
        if parameters.temperature == 0.0:
            return int(np.argmax(scores))
        draw = self._random.random()
        below_best = scores.astype(np.float64) - scores.max()
        with np.errstate(over="ignore"):  # the tiniest temperatures leave the likeliest token alone
            weights = np.exp(below_best / parameters.temperature)
        if parameters.top_k is not None and parameters.top_k < len(weights):
            weights = _likeliest(weights, parameters.top_k)
        least = parameters.min_p or 0.0  # of the likeliest token's weight, which is 1
        if parameters.top_p >= 1.0:
            return _draw(np.where(weights >= least, weights, 0.0), draw)
        kept = _nucleus(weights, parameters.top_p)
        kept = kept[weights[kept] >= least]
        return int(kept[_draw(weights[kept], draw)])

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
    below_best = logits.astype(np.float64) - logits.max()
    logprobs = below_best - np.log(np.exp(below_best).sum())
    best: tuple[tuple[int, float], ...] = ()
    if count:
        order, _ = _descending(logprobs, _at_least_the(logprobs, count))
        best = tuple((int(each), float(logprobs[each])) for each in order[:count])
    return Chosen(token, float(logprobs[token]), best)


def _at_least_the(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """The ids of the `count` highest values and of all equals of the last one."""
    if count >= len(values):
        return np.arange(len(values))
    return np.flatnonzero(values >= np.partition(values, -count)[-count])


def _likeliest(weights: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """The weights of the `count` likeliest ids, of equals the lowest; 0 for the others."""
    order, _ = _descending(weights, _at_least_the(weights, count))
    kept = np.zeros_like(weights)
    kept[order[:count]] = weights[order[:count]]
    return kept


def _nucleus(weights: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    """The fewest ids, likeliest first, whose weight reaches `top_p` of the whole; at least one.

    Sorting a whole vocabulary costs more than a small model's forward pass, so the likeliest few are tried first.
    """
    wanted = top_p * weights.sum()
    for count in _FIRST_CANDIDATES:
        if count < len(weights):
            # by value and not by count, so that all equals of the last one come along
            order, cumulative = _descending(weights, _at_least_the(weights, count))
            if cumulative[-1] >= wanted:
                break
    else:
        order, cumulative = _descending(weights, np.arange(len(weights)))
    return order[: int(np.searchsorted(cumulative, wanted)) + 1]


def _descending(
    weights: npt.NDArray[np.float64], ids: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The ids by falling weight, equals in the order of their ids, and the running sums of the weights."""
    order = ids[np.argsort(-weights[ids], kind="stable")]
    return order, np.cumsum(weights[order])


def _draw(weights: npt.NDArray[np.float64], draw: float) -> int:
    """Inverse transform sampling: the index at which the cumulative weight passes `draw` in [0, 1)."""
    cumulative = np.cumsum(weights)
    found = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
    # rounded up to the very end, it is the last one of any weight
    return found if found < len(weights) else int(np.flatnonzero(weights)[-1])
