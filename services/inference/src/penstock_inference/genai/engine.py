"""Several sequences on one model, in turn: a pass brings one of them a token further, or a stretch of its prompt.

onnxruntime-genai runs a sequence by itself; on a CPU it batches only what begins and ends together. In turn, sequences
join and leave between any two passes; what that costs beside batches is in ADR 0029.

- Nothing overtakes in the queue. A generation joins where a place is free, where its cache fits beside the others',
  and where no other prompt is being read.
- Prompts are read in stretches: at most `step_tokens`, and where others generate, at most as many as take `stall_s`
  at the pace measured so far. They are cut as the `scheduler` cuts them, so that they give the same logits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock_inference.backend import RequestFault
from penstock_inference.engine import Choose, Logits
from penstock_inference.prefixes import Counted, count_nothing
from penstock_inference.scheduler import GRID, Generation, cut

_WEIGHT = 0.3
"""Of the newest stretch in the pace."""


class Line(Protocol):
    """One sequence of tokens and its cache."""

    def push(self, ids: Sequence[int]) -> None:
        """Run the model over the next tokens."""
        ...

    def logits(self) -> Logits:
        """What the model says of the token after the last one pushed: [vocabulary]."""
        ...


class Lines(Protocol):
    """A model that runs sequences one by one."""

    @property
    def rows(self) -> int:
        """Most sequences at once."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens in one."""
        ...

    @property
    def cache_tokens(self) -> int:
        """Most tokens in all of them together."""
        ...

    def begin(self, length: int) -> Line:
        """A new sequence of at most `length` tokens."""
        ...


@dataclass(slots=True, eq=False)
class _Running:
    generation: Generation
    line: Line

    @property
    def reading(self) -> bool:
        """Whether some of its prompt is still to come."""
        return self.generation.cached < len(self.generation.prompt)


class GenaiEngine:
    """Implements `local.Generates`. `clock` gives seconds."""

    def __init__(
        self,
        model: Lines,
        choose: Choose,
        *,
        step_tokens: int = 512,
        stall_s: float = 0.2,
        counted: Counted = count_nothing,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._choose = choose
        self._step_tokens = step_tokens
        self._stall_s = stall_s
        self._counted = counted
        self._clock = clock
        self._waiting: deque[Generation] = deque()
        self._running: deque[_Running] = deque()
        """The next turn's first."""
        self._seconds_per_token: float | None = None

    def add(self, generation: Generation) -> None:
        """Queue a generation. Raises ValueError where it can never fit."""
        if _length(generation) > min(self._model.context_length, self._model.cache_tokens):
            raise ValueError(f"{_length(generation)} tokens of prompt and answer fit no sequence")
        self._waiting.append(generation)

    def cancel(self, generation: Generation) -> None:
        """End a generation; its place is free at the next step."""
        generation.append(None)
        self._drop_ended()

    def clear(self) -> None:
        """Forget all generations."""
        self._waiting.clear()
        self._running.clear()

    def step(self) -> tuple[Generation, ...]:
        """Run one pass; the generation it was for, empty when idle.

        Raises RequestFault where that one fails, which has ended then; the others are as they were.
        """
        self._join()
        if not self._running:
            return ()
        running = self._running.popleft()
        generation = running.generation
        try:
            self._advance(running)
        except Exception as error:
            generation.append(None)
            raise RequestFault(generation.key, error) from error
        if generation.finished is None:
            self._running.append(running)
        return (generation,)

    def _advance(self, running: _Running) -> None:
        generation, line = running.generation, running.line
        if running.reading:
            start = generation.cached
            stop = cut(len(generation.prompt), start, self._allowance())
            if stop is None:
                raise RuntimeError("a stretch is GRID tokens at least")
            began = self._clock()
            line.push(generation.prompt[start:stop])
            self._measure(stop - start, self._clock() - began)
            generation.cached = stop
            if running.reading:
                return
            self._counted(0, stop)
        else:
            line.push(generation.tokens[-1:])
            generation.cached += 1
        generation.append(self._choose(generation, line.logits()))

    def _join(self) -> None:
        if not self._waiting or len(self._running) >= self._model.rows or any(each.reading for each in self._running):
            return
        length = _length(self._waiting[0])
        held = sum(_length(each.generation) for each in self._running)
        if held + length <= self._model.cache_tokens:
            generation = self._waiting.popleft()
            try:
                self._running.appendleft(_Running(generation, self._model.begin(length)))
            except Exception as error:
                generation.append(None)
                raise RequestFault(generation.key, error) from error

    def _drop_ended(self) -> None:
        self._waiting = deque(each for each in self._waiting if each.finished is None)
        self._running = deque(each for each in self._running if each.generation.finished is None)

    def _allowance(self) -> int:
        """Tokens in the next stretch of a prompt."""
        if not self._running:  # nobody waits for it
            return self._step_tokens
        if self._seconds_per_token is None:
            return GRID
        return min(self._step_tokens, max(GRID, int(self._stall_s / self._seconds_per_token)))

    def _measure(self, tokens: int, seconds: float) -> None:
        measured = max(seconds, 1e-9) / tokens
        known = self._seconds_per_token
        self._seconds_per_token = measured if known is None else known + _WEIGHT * (measured - known)


def _length(generation: Generation) -> int:
    return len(generation.prompt) + generation.max_tokens
