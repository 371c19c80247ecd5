"""Continuous batching: which tokens go through the model next, and what came of them.

Two verbs. `plan` says what the next forward pass is: a stretch of one prompt, or one token more for all rows that
generate. `take` takes the tokens chosen from it. It knows token ids, counts and the seconds it is told: no model,
no text, no requests, no clock, no Kafka.

- Rows stay compact (0..n-1): when one ends, the last moves into its place and a waiting generation takes the next
  free row, so no pass carries an idle row.
- A round is one pass over the rows and, before it, stretches of prompts: together at most `step_tokens`, and where
  rows would wait for them, at most as many as take `stall_s` at the pace measured so far.
- Prompts are cut at multiples of GRID, and never so that one token is left. Kernels for one token round otherwise
  than those for several; cut so, a prompt gives the same logits as in one piece, whatever shares the batch.
- The cache pool is cut into rows of equal length, as long as the longest generation in it may get. What fits no
  row at any time is refused by `add`; what does not fit now waits, and nothing overtakes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Finish = Literal["eos", "length", "cancelled"]

GRID: Final = 16
"""Tokens. Prompts are cut, and kept for others to use, at multiples of it."""
_SHORTEST_ROW: Final = 64
_FIRST_STRETCH: Final = 2 * GRID
"""Before any pace is known."""
_WEIGHT: Final = 0.3
"""Of the newest pass in the pace."""


@dataclass(frozen=True, slots=True)
class Space:
    """What the cache has: most rows at once, tokens in all of them together, most tokens in one."""

    rows: int
    tokens: int
    context: int

    def row_length(self, tokens: int) -> int:
        """The length of a row for that many tokens: doubled until it suffices, at most `context`."""
        length = _SHORTEST_ROW
        while length < tokens:
            length *= 2
        return min(length, self.context)

    def rows_of(self, length: int) -> int:
        """How many rows of a length there are."""
        return min(self.rows, self.tokens // length)


@dataclass(slots=True, eq=False)
class Generation:
    """One sequence: its prompt and what it has so far. `key` is the caller's."""

    key: int
    prompt: Sequence[int]
    max_tokens: int
    eos_ids: frozenset[int] = frozenset()
    adapter: str | None = None
    """What changes the model for it."""
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    """Tokens in its cache row; the newest token is not yet there."""
    finished: Finish | None = None

    def append(self, token: int | None) -> None:
        """The next token, which may be its end. None ends it as cancelled."""
        if token is None:
            self.finished = self.finished or "cancelled"
            return
        self.tokens.append(token)
        if token in self.eos_ids:
            self.finished = "eos"
        elif len(self.tokens) >= self.max_tokens:
            self.finished = "length"


@dataclass(frozen=True, slots=True)
class Plan:
    """The next forward pass, and what must be done to the cache before it: moves, then the new row length."""

    kind: Literal["prefill", "decode"]
    generations: tuple[Generation, ...]
    """The one whose prompt goes on, in `row`; or those of rows 0..n-1."""
    row: int = 0
    start: int = 0
    stop: int = 0
    """The stretch of the prompt."""
    reused: int = 0
    """Tokens before `start` that another prompt left and that must be copied into the row first."""
    moves: tuple[tuple[int, int, int], ...] = ()
    """From row, to row, how many tokens."""
    row_length: int | None = None
    """The pool is cut anew, into rows of this length."""
    kept: tuple[int, ...] = ()
    """Tokens in the rows that must survive that."""

    @property
    def chooses(self) -> bool:
        """Whether its logits give tokens; all but those in the middle of a prompt do."""
        return self.kind == "decode" or self.stop == len(self.generations[0].prompt)


class Scheduler:
    """The rows of one cache and the queue before them."""

    def __init__(
        self,
        space: Space,
        *,
        step_tokens: int = 512,
        stall_s: float = 0.2,
        reusable: Callable[[Generation], int] | None = None,
        admits: Callable[[Generation, Sequence[Generation]], bool] | None = None,
    ) -> None:
        """`reusable` says how many of a prompt's first tokens are there already, a multiple of GRID.

        `admits` says whether one may join those that run; it may end the one it is asked about.

        Raises ValueError where a step has no room for all rows and a piece of a prompt.
        """
        if step_tokens < space.rows + GRID + 1:
            raise ValueError(f"a step of {step_tokens} tokens is too short for {space.rows} rows and {GRID + 1} more")
        self._space = space
        self._step_tokens = step_tokens
        self._stall_s = stall_s
        self._reusable = reusable or (lambda generation: 0)
        self._admits = admits or (lambda generation, running: True)
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._prompt: Generation | None = None
        self._row_length = 0
        self._seconds_per_token: float | None = None
        self._left = self._allowance()

    def add(self, generation: Generation) -> None:
        """Queue a generation. Raises ValueError where it fits no row at any time."""
        whole = len(generation.prompt) + generation.max_tokens
        fits = whole <= self._space.context and self._space.rows_of(self._space.row_length(whole)) > 0
        if not generation.prompt or generation.max_tokens < 1 or not fits:
            raise ValueError(
                f"a prompt of {len(generation.prompt)} tokens and {generation.max_tokens} more do not fit "
                f"a context of {self._space.context}, {self._space.tokens} tokens in all"
            )
        self._waiting.append(generation)

    def cancel(self, generation: Generation) -> None:
        """End a generation; its row is free at the next plan."""
        if generation.finished is None:
            generation.finished = "cancelled"

    def clear(self) -> None:
        """Forget all generations."""
        self._waiting.clear()
        self._running.clear()
        self._prompt = None
        self._row_length = 0  # whatever went wrong, the pool is cut anew

    def plan(self) -> Plan | None:
        """The next pass; None where nothing is left to do. It must be taken before the next one is planned."""
        moves = self._compact()
        going = self._prompt
        if going is not None:
            stop = cut(len(going.prompt), going.cached, self._left)
            if stop is not None:
                return Plan("prefill", (going,), len(self._running), going.cached, stop, moves=moves)
        else:
            joining = self._join(moves)
            if joining is not None:
                return joining
        if not self._running:
            return None
        return Plan("decode", tuple(self._running), moves=moves)

    def take(self, plan: Plan, tokens: Sequence[int | None], seconds: float) -> None:
        """What came of a plan: a token for each of its generations where it chooses, and how long the pass took.

        None for a token ends the generation as cancelled.
        """
        if plan.kind == "prefill":
            going = plan.generations[0]
            going.cached = plan.stop
            self._measure(plan.stop - plan.start, seconds)
            self._left -= plan.stop - plan.start
            if plan.chooses:
                self._prompt = None
                self._running.append(going)
                self._left = min(self._left, self._allowance())
        else:
            self._left = self._allowance()
            for generation in plan.generations:
                generation.cached += 1
        if plan.chooses:
            for generation, token in zip(plan.generations, tokens, strict=True):
                generation.append(token)

    def _compact(self) -> tuple[tuple[int, int, int], ...]:
        """Take out what has ended; the rows to move so that those left are 0..n-1, and the prompt's behind them."""
        moves = []
        end = len(self._running)
        row = 0
        while row < len(self._running):
            if self._running[row].finished is None:
                row += 1
                continue
            last = self._running.pop()
            if row < len(self._running):
                if last.finished is None:
                    moves.append((len(self._running), row, last.cached))
                self._running[row] = last
        if self._prompt is not None and self._prompt.finished is not None:
            self._prompt = None
        if self._prompt is not None and len(self._running) < end:
            moves.append((end, len(self._running), self._prompt.cached))
        if not self._running:
            self._left = self._allowance()
        return tuple(moves)

    def _join(self, moves: tuple[tuple[int, int, int], ...]) -> Plan | None:
        """The first pass of the next generation in the queue, if there is room for it now."""
        while self._waiting and self._waiting[0].finished is not None:
            self._waiting.popleft()
        if not self._waiting:
            return None
        going = self._waiting[0]
        length = self._length_with(going)
        if self._space.rows_of(length) <= len(self._running):
            return None
        if not self._admits(going, self._running):
            return None
        reused = self._reusable(going)
        stop = cut(len(going.prompt), reused, self._left)
        if stop is None:
            return None
        changed = length if length != self._row_length else None
        self._waiting.popleft()
        self._prompt, self._row_length = going, length
        going.cached = reused
        return Plan(
            "prefill",
            (going,),
            len(self._running),
            reused,
            stop,
            reused=reused,
            moves=moves,
            row_length=changed,
            kept=tuple(each.cached for each in self._running) if changed else (),
        )

    def _length_with(self, joining: Generation) -> int:
        """The row length with one more: the present one where it will do, since cutting anew copies all rows."""
        longest = max(len(each.prompt) + each.max_tokens for each in (*self._running, joining))
        needed = self._space.row_length(longest)
        if self._row_length >= needed and self._space.rows_of(self._row_length) > len(self._running):
            return self._row_length
        return needed

    def _allowance(self) -> int:
        """Tokens of prompts in a round."""
        # one less, for the token that may go along
        most = self._step_tokens - 1 - len(self._running)
        if not self._running:
            return most
        if self._seconds_per_token is None:
            return min(most, _FIRST_STRETCH)
        return min(most, max(GRID, int(min(self._stall_s / self._seconds_per_token, most))))

    def _measure(self, tokens: int, seconds: float) -> None:
        measured = max(seconds, 1e-9) / tokens
        known = self._seconds_per_token
        self._seconds_per_token = measured if known is None else known + _WEIGHT * (measured - known)


def cut(length: int, start: int, most: int) -> int | None:
    """Where the next stretch of a prompt of `length` tokens ends, of `most` tokens and maybe one more.

    None where that is not enough for any.
    """
    rest = length - start
    if rest <= most:
        return length
    stretch = most // GRID * GRID
    if stretch <= 0:
        return None
    # a single token left goes along
    return start + (rest if rest - stretch == 1 else stretch)
