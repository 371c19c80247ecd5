"""The engine beside recorded answers: alone, in batches that change all the time, sampled by seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path

import numpy as np

from penstock.contracts.events import GenerationParameters
from penstock_inference.engine import Choose, Engine, Logits
from penstock_inference.layout import ModelLayout
from penstock_inference.prefixes import PrefixCache
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.sampler import Sampler
from penstock_inference.scheduler import GRID, Generation
from penstock_inference.session import Provider


@dataclass(frozen=True)
class Case:
    """A prompt, transformers' greedy answer, and the places in it where rounding may decide."""

    prompt: list[int]
    max_tokens: int
    answer: list[int]
    close: tuple[int, ...]

    def agrees(self, tokens: Sequence[int]) -> bool:
        """Token for token."""
        return list(tokens) == self.answer

    def ties(self, tokens: Sequence[int]) -> bool:
        """Whether they part at a place where the two likeliest tokens are as good as equal."""
        pairs = zip(tokens, self.answer, strict=False)
        at = next((at for at, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
        return at in self.close


@dataclass
class Ran:
    """The tokens of each case, and what the engine did for them."""

    tokens: list[list[int]]
    pieces: int
    """Passes that read a part of a prompt other than its last."""
    most_rows: int
    """That generated together."""
    batches: int
    """How often their number changed."""
    reused: int
    """Tokens of prompts taken from the prefix cache."""
    left: int
    """Generations that were given up while others went on."""


@dataclass(frozen=True)
class How:
    """How the cases are run: rows together, tokens in a step, MiB of prefixes, a seed for comings and goings."""

    rows: int = 1
    step_tokens: int = 512
    prefix_mib: int = 0
    changing: int | None = None
    """None: all cases are there from the beginning."""
    provider: Provider = "cpu"


ALONE = How()
WAYS: dict[str, How] = {
    "alone": ALONE,
    "8 rows": How(rows=8),
    "3 rows, joining and leaving": How(rows=3, changing=1),
    "8 rows, joining and leaving, prompts in pieces": How(rows=8, step_tokens=48, changing=2),
    "8 rows, joining and leaving, prompts in pieces, prefixes kept": How(8, 48, 8, changing=3),
    "5 rows, prompts in pieces, few prefixes kept": How(5, 64, 1, changing=4),
}


class _Watched(OnnxRunner):
    """Notes what it is asked to run."""

    def __init__(self, layout: ModelLayout, limits: Limits) -> None:
        super().__init__(layout, limits)
        self.pieces = 0
        self.sizes: list[int] = []

    def prefill(self, row: int, start: int, ids: Sequence[int], *, last: bool = True) -> Logits:
        self.pieces += not last
        return super().prefill(row, start, ids, last=last)

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        self.sizes.append(len(ids))
        return super().decode(ids, lengths)


def read(folder: Path) -> list[Case]:
    """What `tests/equality/reference.py` recorded beside a model."""
    recorded = json.loads((folder / "equality.json").read_text())
    return [
        Case(each["prompt_ids"], each["max_tokens"], each["output_ids"], tuple(each["close"]))
        for each in recorded["cases"]
    ]


def greedy(_: Generation, logits: Logits) -> int:
    """The likeliest token."""
    return int(logits.argmax())


def sampled(cases: Sequence[Case], seed: int) -> Choose:
    """Each case's tokens drawn by a sampler of its own; cases without end differ in their parameters."""
    ways = (
        {"temperature": 0.7},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 1.3, "top_k": 40},
        {"temperature": 1.0, "min_p": 0.05, "repetition_penalty": 1.1},
    )
    samplers: dict[int, Sampler] = {}

    def choose(generation: Generation, logits: Logits) -> int:
        number = generation.key
        if number not in samplers:
            parameters = GenerationParameters(model="m", max_tokens=generation.max_tokens, **ways[number % len(ways)])
            samplers[number] = Sampler(parameters, seed * len(cases) + number, generation.prompt)
        return samplers[number].choose(logits)

    return choose


@dataclass
class _Others:
    """Generations that come and are given up after a while, so that rows become free and are moved."""

    random: np.random.Generator
    engine: Engine
    prompts: Sequence[Sequence[int]]
    max_tokens: int
    going: list[tuple[Generation, int]] = field(default_factory=list)
    left: int = 0

    def turn(self, step: int) -> None:
        for generation, until in self.going:
            if step >= until and generation.finished is None:
                self.engine.cancel(generation)
                self.left += bool(generation.cached)
        self.going = [each for each in self.going if each[0].finished is None]
        if len(self.going) < 2 and self.random.random() < 0.05:
            prompt = self.prompts[int(self.random.integers(len(self.prompts)))]
            # below any case's
            generation = Generation(-step - 1, prompt, self.max_tokens)
            self.engine.add(generation)
            self.going.append((generation, step + int(self.random.integers(1, 30))))


def run(folder: Path, cases: Sequence[Case], how: How, choose: Choose = greedy) -> Ran:
    """All cases through one engine."""
    layout = ModelLayout.read(folder)
    runner = _Watched(layout, Limits(rows=how.rows, provider=how.provider))
    prefixes = PrefixCache(how.prefix_mib << 20, runner.read(0, 0, GRID)) if how.prefix_mib else None

    def chosen(generation: Generation, logits: Logits) -> int:
        return (choose if generation.key >= 0 else greedy)(generation, logits)

    ticks = count()
    engine = Engine(  # a clock of its own: the same passes on any machine
        runner, chosen, step_tokens=how.step_tokens, prefixes=prefixes, clock=lambda: next(ticks) / 1000
    )
    generations = [Generation(key, each.prompt, each.max_tokens, layout.eos_ids) for key, each in enumerate(cases)]
    waiting = list(reversed(generations))
    random = np.random.default_rng(how.changing)
    others = _Others(random, engine, [each.prompt for each in cases], max(each.max_tokens for each in cases))
    # somewhat fewer come than can be served, so that the rows are now all taken, now few
    rate = 1.0 if how.changing is None else 0.8 * how.rows * len(cases) / sum(each.max_tokens for each in cases)
    step = 0
    while waiting or any(each.finished is None for each in generations):
        while waiting and random.random() < rate:
            engine.add(waiting.pop())
        if how.changing is not None:
            others.turn(step)
        engine.step()
        step += 1
    sizes = runner.sizes
    return Ran(
        tokens=[each.tokens for each in generations],
        pieces=runner.pieces,
        most_rows=max(sizes, default=0),
        batches=sum(before != after for before, after in pairwise(sizes)),
        reused=prefixes.reused_tokens if prefixes is not None else 0,
        left=others.left,
    )
