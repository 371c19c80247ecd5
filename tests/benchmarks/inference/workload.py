"""Requests of random tokens: how long their prompts and answers are, and when they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

PROMPTS = (16, 512)
ANSWERS = (8, 256)
"""Fewest and most tokens, drawn evenly."""
FIRST_ID = 10
"""Ids below it pad, begin or end a sequence."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how many tokens its answer has: end tokens are not heeded, so that all do the same work."""

    key: int
    prompt: tuple[int, ...]
    tokens: int
    at: float = 0.0
    """Seconds after the start at which it comes."""


def requests(
    count: int,
    vocabulary: int,
    *,
    prompts: tuple[int, int] = PROMPTS,
    answers: tuple[int, int] = ANSWERS,
    seed: int = 1,
) -> list[Request]:
    """Requests that all come at once."""
    random = np.random.default_rng(seed)
    lengths = random.integers(prompts[0], prompts[1] + 1, count)
    tokens = random.integers(answers[0], answers[1] + 1, count)
    return [
        Request(key, tuple(random.integers(FIRST_ID, vocabulary, length).tolist()), int(tokens[key]))
        for key, length in enumerate(lengths)
    ]


def poisson(made: Sequence[Request], rate: float, *, seed: int = 2) -> list[Request]:
    """The same requests, `rate` a second on average, independent of each other."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, len(made))
    return [replace(request, at=float(at)) for request, at in zip(made, np.cumsum(gaps), strict=True)]


def alone(vocabulary: int, prompt: int, tokens: int, *, count: int = 1, seed: int = 3) -> list[Request]:
    """Requests of one size that come at once."""
    return requests(count, vocabulary, prompts=(prompt, prompt), answers=(tokens, tokens), seed=seed)


def total_tokens(made: Sequence[Request]) -> int:
    """Tokens of all answers."""
    return sum(request.tokens for request in made)
