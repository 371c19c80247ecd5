"""Continuous batching: which row runs next, and what came of it.

Two verbs: `plan` says what the next forward pass is, `update` takes its logits. Rows stay compact
(0..n-1): when one finishes, the last row moves into its place and a waiting sequence takes the next
free row, so a decode pass never carries an idle row. The engine knows token ids alone: no text, no
requests, no Kafka; running the pass is the `Runner`'s work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Finish = Literal["eos", "length", "cancelled"]


class Runner(Protocol):
    """A model with a cache of `rows` rows, each of `context_length` tokens."""

    @property
    def rows(self) -> int:
        """Most rows that run together."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer in one row."""
        ...

    def prefill(self, row: int, ids: Sequence[int]) -> Logits:
        """Start a row with a whole prompt; the last token's logits, shape [1, vocabulary]."""
        ...

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One token more for rows 0..n-1, whose caches hold `lengths` tokens; logits of shape [n, vocabulary]."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cached tokens of one row to another."""
        ...


@dataclass(slots=True, eq=False)
class Generation:
    """One sequence: its prompt, how its tokens are chosen, and what it has so far. `key` is the caller's."""

    key: int
    prompt: Sequence[int]
    max_tokens: int
    choose: Callable[[Logits], int]
    eos_ids: frozenset[int]
    tokens: list[int] = field(default_factory=list)
    finished: Finish | None = None

    @property
    def cached(self) -> int:
        """Tokens in its cache row: all but the newest, which the next pass adds."""
        return len(self.prompt) + max(0, len(self.tokens) - 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next forward pass: the prompt of one generation in `row`, or one token for rows 0..n-1."""

    kind: Literal["prefill", "decode"]
    generations: tuple[Generation, ...]
    row: int = 0


class Engine:
    """The rows of one runner and the queue before them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._waiting: deque[Generation] = deque()
        self._active: list[Generation] = []

    def add(self, generation: Generation) -> None:
        """Queue a generation; its prompt must leave room for at least one token."""
        room = self._runner.context_length - len(generation.prompt)
        if not generation.prompt or room < 1 or not 1 <= generation.max_tokens <= room:
            raise ValueError(
                f"a prompt of {len(generation.prompt)} tokens and {generation.max_tokens} more do not fit "
                f"a context of {self._runner.context_length}"
            )
        self._waiting.append(generation)

    def cancel(self, generation: Generation) -> None:
        """End a generation; its row is free at the next plan."""
        if generation.finished is None:
            generation.finished = "cancelled"

    def clear(self) -> None:
        """Forget all generations."""
        self._waiting.clear()
        self._active.clear()

    def plan(self) -> Plan | None:
        """The next pass; None where nothing is left to do. A free row is filled before others go on."""
        self._compact()
        while self._waiting and len(self._active) < self._runner.rows:
            generation = self._waiting.popleft()
            if generation.finished is None:
                self._active.append(generation)
                return Plan("prefill", (generation,), len(self._active) - 1)
        if not self._active:
            return None
        return Plan("decode", tuple(self._active))

    def run(self, plan: Plan) -> Logits:
        """The plan's forward pass."""
        if plan.kind == "prefill":
            return self._runner.prefill(plan.row, plan.generations[0].prompt)
        return self._runner.decode(
            [each.tokens[-1] for each in plan.generations], [each.cached for each in plan.generations]
        )

    def update(self, plan: Plan, logits: Logits) -> tuple[Generation, ...]:
        """Choose each generation's token from its row of logits; those that got one, in order."""
        for generation, row in zip(plan.generations, logits, strict=True):
            token = generation.choose(row)
            generation.tokens.append(token)
            if token in generation.eos_ids:
                generation.finished = "eos"
            elif len(generation.tokens) >= generation.max_tokens:
                generation.finished = "length"
        return plan.generations

    def _compact(self) -> None:
        row = 0
        while row < len(self._active):
            if self._active[row].finished is None:
                row += 1
                continue
            last = self._active.pop()
            if row < len(self._active):
                if last.finished is None:
                    self._runner.move(len(self._active), row, last.cached)
                self._active[row] = last
