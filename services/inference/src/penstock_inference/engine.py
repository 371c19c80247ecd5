"""The scheduler's plans, run: cache rows moved, prompts and tokens through the model, a token chosen for each row.

It knows token ids and logits: no text, no requests, no Kafka. The pass itself is the `Runner`'s work, the choice of
a token the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from penstock_inference.backend import RequestFault
from penstock_inference.prefixes import Block, PrefixCache
from penstock_inference.scheduler import GRID, Generation, Plan, Scheduler, Space

Logits = npt.NDArray[np.float32]
Choose = Callable[[Generation, Logits], int]
"""The next token of a generation, from logits of shape [vocabulary]."""


class Runner(Protocol):
    """A model and its cache, a pool of `cache_tokens` tokens that is cut into rows of equal length."""

    @property
    def rows(self) -> int:
        """Most rows that run together."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer in one row."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids in its logits."""
        ...

    @property
    def cache_tokens(self) -> int:
        """Tokens that all rows hold together."""
        ...

    def arrange(self, row_length: int, kept: Sequence[int]) -> None:
        """Cut the pool into rows of `row_length` tokens, keeping the first `kept[i]` tokens of row i."""
        ...

    def prefill(self, row: int, start: int, ids: Sequence[int], *, last: bool = True) -> Logits:
        """Add a stretch of a prompt to a row that holds `start` tokens.

        The logits of its last token, [1, vocabulary]; where it is not the `last` stretch of its prompt, none.
        """
        ...

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One token more for rows 0..n-1, whose caches hold `lengths` tokens; logits of shape [n, vocabulary]."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cached tokens of one row to another."""
        ...

    def read(self, row: int, start: int, stop: int) -> Block:
        """A copy of a row's cached tokens start..stop-1."""
        ...

    def write(self, row: int, start: int, block: Block) -> None:
        """Put a copied block into a row."""
        ...


class Adapters(Protocol):
    """What changes the model for some rows."""

    def admit(self, adapter: str | None, running: Collection[str | None]) -> bool:
        """Have an adapter in memory for a row beside those that run; False where it must wait for theirs to end."""
        ...

    def use(self, adapters: Sequence[str | None]) -> None:
        """Say which adapter each row of the next pass has."""
        ...


class Engine:
    """One runner and all generations on it. `clock` gives seconds."""

    def __init__(
        self,
        runner: Runner,
        choose: Choose,
        *,
        step_tokens: int = 512,
        stall_s: float = 0.2,
        prefixes: PrefixCache | None = None,
        adapters: Adapters | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runner = runner
        self._choose = choose
        self._prefixes = prefixes
        self._adapters = adapters
        self._clock = clock
        self._scheduler = Scheduler(
            Space(runner.rows, runner.cache_tokens, runner.context_length),
            step_tokens=step_tokens,
            stall_s=stall_s,
            reusable=None if prefixes is None else lambda each: prefixes.reusable(each.prompt, each.adapter),
            admits=self._admits,
        )
        self._faults: list[RequestFault] = []

    def add(self, generation: Generation) -> None:
        """Queue a generation. Raises ValueError where it can never fit."""
        self._scheduler.add(generation)

    def cancel(self, generation: Generation) -> None:
        """End a generation; its row is free at the next step."""
        self._scheduler.cancel(generation)
        self._faults = [fault for fault in self._faults if fault.key != generation.key]

    def clear(self) -> None:
        """Forget all generations."""
        self._scheduler.clear()
        self._faults.clear()

    def step(self) -> tuple[Generation, ...]:
        """Run one pass; the generations it was for, empty when idle.

        Raises RequestFault where one generation is at fault, which has ended then; the others are as they were.
        """
        if self._faults:
            raise self._faults.pop()
        plan = self._scheduler.plan()
        if plan is None:
            if self._faults:
                raise self._faults.pop()
            return ()
        for source, target, length in plan.moves:
            self._runner.move(source, target, length)
        if plan.row_length is not None:
            self._runner.arrange(plan.row_length, plan.kept)
        started = self._clock()
        try:
            logits = self._run(plan)
        except Exception as error:
            if plan.kind == "decode":
                raise
            # other rows are not touched
            self._scheduler.cancel(plan.generations[0])
            raise RequestFault(plan.generations[0].key, error) from error
        seconds = self._clock() - started
        tokens = [self._chosen(*each) for each in zip(plan.generations, logits, strict=True)] if plan.chooses else []
        self._scheduler.take(plan, tokens, seconds)
        if plan.kind == "prefill" and plan.chooses and self._prefixes is not None:
            self._prefixes.store(
                plan.generations[0].prompt,
                lambda start, stop: self._runner.read(plan.row, start, stop),
                plan.generations[0].adapter,
            )
        failed = {fault.key for fault in self._faults}
        advanced = tuple(each for each in plan.generations if each.key not in failed)
        if not advanced:
            raise self._faults.pop()
        return advanced

    def _admits(self, generation: Generation, running: Sequence[Generation]) -> bool:
        if self._adapters is None:
            return True
        try:
            return self._adapters.admit(generation.adapter, {each.adapter for each in running})
        except Exception as error:  # noqa: BLE001  # whatever is wrong with an adapter is the fault of who asks for it
            self._faults.append(RequestFault(generation.key, error))
            self._scheduler.cancel(generation)
            return False

    def _run(self, plan: Plan) -> Logits:
        if self._adapters is not None:
            self._adapters.use([each.adapter for each in plan.generations])
        if plan.kind == "decode":
            return self._runner.decode(
                [each.tokens[-1] for each in plan.generations], [each.cached for each in plan.generations]
            )
        prompt = plan.generations[0].prompt
        if self._prefixes is not None and plan.start == plan.reused:
            for at, block in enumerate(self._prefixes.fetch(prompt, plan.reused, plan.generations[0].adapter)):
                self._runner.write(plan.row, at * GRID, block)
        return self._runner.prefill(plan.row, plan.start, prompt[plan.start : plan.stop], last=plan.chooses)

    def _chosen(self, generation: Generation, logits: Logits) -> int | None:
        """None where the choice fails: a fault of this generation alone, raised by the next step."""
        try:
            return self._choose(generation, logits)
        except Exception as error:  # noqa: BLE001  # any bug of one request's sampling must not reach its neighbours
            self._faults.append(RequestFault(generation.key, error))
            return None
