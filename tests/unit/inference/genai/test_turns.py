"""Sequences in turn over a model whose answers depend on all that was pushed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tests.support.generation import Clock

from penstock_inference.backend import RequestFault
from penstock_inference.engine import Logits
from penstock_inference.genai.engine import GenaiEngine
from penstock_inference.scheduler import GRID, Generation

VOCABULARY = 50
EOS = 3
REFUSED = 49


class LedgerLine:
    def __init__(self, model: LedgerModel, length: int) -> None:
        self._model = model
        self.length = length
        self.held: list[int] = []

    def push(self, ids: Sequence[int]) -> None:
        if REFUSED in ids:
            raise RuntimeError("refused")
        self.held += ids
        assert len(self.held) <= self.length
        self._model.pushed.append(len(ids))
        self._model.clock.now += self._model.seconds_per_token * len(ids)

    def logits(self) -> Logits:
        logits: Logits = np.zeros(VOCABULARY, dtype=np.float32)
        logits[hashlib.sha256(bytes(self.held)).digest()[0] % REFUSED] = 1.0
        return logits


class LedgerModel:
    """Implements `genai.engine.Lines`."""

    context_length = 64

    def __init__(self, rows: int = 4, cache_tokens: int = 256, seconds_per_token: float = 0.0) -> None:
        self.rows = rows
        self.cache_tokens = cache_tokens
        self.clock = Clock()
        self.seconds_per_token = seconds_per_token
        self.pushed: list[int] = []
        self.lines: list[LedgerLine] = []
        self.begun: Callable[[], None] = lambda: None

    def begin(self, length: int) -> LedgerLine:
        self.begun()
        self.lines.append(LedgerLine(self, length))
        return self.lines[-1]


def _greedy(generation: Generation, logits: Logits) -> int:
    return int(np.argmax(logits))


def _engine(model: LedgerModel, **more: float) -> GenaiEngine:
    return GenaiEngine(model, _greedy, step_tokens=32, clock=model.clock, **more)


def _generation(key: int, length: int = 5, max_tokens: int = 8, eos: frozenset[int] = frozenset()) -> Generation:
    return Generation(key, [(key * 7 + each) % REFUSED for each in range(length)], max_tokens, eos)


def _run(engine: GenaiEngine) -> None:
    while engine.step():
        pass


def _alone(generation: Generation) -> list[int]:
    held, tokens = list(generation.prompt), []
    while len(tokens) < generation.max_tokens and (not tokens or tokens[-1] not in generation.eos_ids):
        tokens.append(hashlib.sha256(bytes(held)).digest()[0] % REFUSED)
        held.append(tokens[-1])
    return tokens


def test_answers_do_not_depend_on_what_else_runs() -> None:
    generations = [_generation(key, 1 + key * 3 % 37, 1 + key * 5 % 23, frozenset({EOS})) for key in range(40)]
    engine = _engine(LedgerModel())
    for generation in generations:
        engine.add(generation)
    _run(engine)
    assert [each.tokens for each in generations] == [_alone(each) for each in generations]
    assert {each.finished for each in generations} == {"eos", "length"}


def test_sequences_take_turns_and_the_last_to_come_is_next() -> None:
    engine = _engine(LedgerModel())
    for key in (1, 2):
        engine.add(_generation(key))
    assert [engine.step()[0].key for _ in range(6)] == [1, 2, 1, 2, 1, 2]
    engine.add(_generation(3))
    assert [engine.step()[0].key for _ in range(4)] == [3, 1, 2, 3]


def test_no_more_run_than_places_and_cache_allow_and_nothing_overtakes() -> None:
    model = LedgerModel(rows=3, cache_tokens=100)
    engine = _engine(model)
    generations = [_generation(1, 30, 20), _generation(2, 30, 21), _generation(3, 1, 1)]
    for generation in generations:
        engine.add(generation)
    while generations[0].finished is None:
        assert {each.key for each in engine.step()} == {1}
    assert engine.step()[0].key == 2
    assert engine.step()[0].key == 3
    _run(engine)
    assert len(generations[1].tokens) == 21


def test_a_row_is_free_after_a_cancellation() -> None:
    engine = _engine(LedgerModel(rows=1))
    first, waiting, next_one = (_generation(key) for key in (1, 2, 3))
    for generation in (first, waiting, next_one):
        engine.add(generation)
    engine.step()
    engine.cancel(first)
    engine.cancel(waiting)
    assert engine.step() == (next_one,)
    assert (first.finished, waiting.finished, len(first.tokens), waiting.tokens) == ("cancelled", "cancelled", 1, [])


def test_prompts_are_read_in_stretches_and_others_generate_meanwhile() -> None:
    model = LedgerModel(seconds_per_token=0.01)
    engine = _engine(model, stall_s=0.2)
    engine.add(_generation(1, 4, 60))
    for _ in range(3):
        engine.step()
    engine.add(_generation(2, 60, 2))
    model.pushed.clear()
    turns = [engine.step()[0].key for _ in range(8)]
    assert turns == [2, 1] * 4
    # 20 tokens in 0.2 s, cut to the grid; the rest, and no stretch of one
    assert model.pushed[:7:2] == [GRID, GRID, GRID, 60 - 3 * GRID]
    _run(engine)


def test_a_prompt_that_is_alone_is_read_in_steps() -> None:
    model = LedgerModel(seconds_per_token=1.0)
    engine = _engine(model, stall_s=0.01)
    engine.add(_generation(1, 49, 1))
    _run(engine)
    assert model.pushed == [32, 17]


def test_of_several_prompts_one_is_read_at_a_time() -> None:
    engine = _engine(LedgerModel())
    for key in (1, 2):
        engine.add(_generation(key, 60, 2))
    assert [engine.step()[0].key for _ in range(4)] == [1, 1, 2, 1]


def test_a_pass_that_fails_is_its_sequences_fault_alone() -> None:
    engine = _engine(LedgerModel())
    good, bad = _generation(1), Generation(2, [REFUSED], 4)
    engine.add(good)
    engine.add(bad)
    engine.step()
    with pytest.raises(RequestFault) as raised:
        engine.step()
    assert raised.value.key == 2
    assert bad.finished == "cancelled"
    _run(engine)
    assert good.tokens == _alone(good)


def test_a_sequence_that_cannot_begin_is_its_own_fault() -> None:
    model = LedgerModel()
    engine = _engine(model)

    def full() -> None:
        model.begun = lambda: None
        raise MemoryError

    model.begun = full
    engine.add(_generation(1))
    engine.add(_generation(2))
    with pytest.raises(RequestFault) as raised:
        engine.step()
    assert (raised.value.key, type(raised.value.cause)) == (1, MemoryError)
    assert engine.step()[0].key == 2


def test_what_can_never_fit_is_refused() -> None:
    engine = _engine(LedgerModel(cache_tokens=40))
    with pytest.raises(ValueError, match="41 tokens"):
        engine.add(_generation(1, 20, 21))
    engine.add(_generation(1, 20, 20))
    _run(engine)


def test_clear_forgets_all() -> None:
    engine = _engine(LedgerModel(rows=1))
    engine.add(_generation(1))
    engine.add(_generation(2))
    engine.step()
    engine.clear()
    assert engine.step() == ()


def test_prompts_are_counted_once() -> None:
    counts: list[tuple[int, int]] = []
    model = LedgerModel()
    engine = GenaiEngine(model, _greedy, step_tokens=32, counted=lambda *each: counts.append(each))
    engine.add(_generation(1, 49, 3))
    _run(engine)
    assert counts == [(0, 49)]
