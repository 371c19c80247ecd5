"""Batching of rows, over a runner whose answers depend on what its rows hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from penstock_inference.engine import Engine, Generation, Logits

VOCABULARY = 50
EOS = 3


class LedgerRunner:
    """Keeps each row's tokens and answers by their hash: a wrong row, length or move changes the answer."""

    def __init__(self, rows: int, context_length: int = 64) -> None:
        self.rows = rows
        self.context_length = context_length
        self.held: list[list[int]] = [[] for _ in range(rows)]
        self.passes: list[tuple[str, int]] = []

    def prefill(self, row: int, ids: Sequence[int]) -> Logits:
        self.passes.append(("prefill", row))
        self.held[row] = list(ids)
        return np.stack([self._answer(row)])

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        self.passes.append(("decode", len(ids)))
        for row, (token, length) in enumerate(zip(ids, lengths, strict=True)):
            assert len(self.held[row]) >= length
            self.held[row] = [*self.held[row][:length], token]
        return np.stack([self._answer(row) for row in range(len(ids))])

    def move(self, source: int, target: int, length: int) -> None:
        self.held[target] = self.held[source][:length]

    def _answer(self, row: int) -> Logits:
        digest = hashlib.sha256(bytes(self.held[row])).digest()
        logits: Logits = np.zeros(VOCABULARY, dtype=np.float32)
        logits[digest[0] % VOCABULARY] = 1.0
        return logits


def _greedy(logits: Logits) -> int:
    return int(np.argmax(logits))


def _generation(key: int, length: int, max_tokens: int, eos: frozenset[int] = frozenset({EOS})) -> Generation:
    prompt = [(key * 7 + each) % VOCABULARY for each in range(length)]
    return Generation(key, prompt, max_tokens, _greedy, eos)


def _run(engine: Engine) -> None:
    while plan := engine.plan():
        engine.update(plan, engine.run(plan))


def _mixed() -> list[Generation]:
    return [_generation(key, 1 + key * 3 % 11, 1 + key * 5 % 23) for key in range(40)]


def _alone(generation: Generation) -> list[int]:
    engine = Engine(LedgerRunner(1))
    engine.add(generation)
    _run(engine)
    return generation.tokens


@pytest.mark.parametrize("rows", [1, 2, 8, 64])
def test_every_row_gets_what_it_gets_alone(rows: int) -> None:
    engine, generations = Engine(LedgerRunner(rows)), _mixed()
    for generation in generations:
        engine.add(generation)
    _run(engine)
    assert [each.tokens for each in generations] == [_alone(each) for each in _mixed()]
    assert {each.finished for each in generations} == {"eos", "length"}


def test_free_rows_are_filled_before_others_go_on_and_passes_carry_no_idle_row() -> None:
    runner = LedgerRunner(2)
    engine = Engine(runner)
    for key, tokens in enumerate((4, 2, 2)):
        engine.add(_generation(key, 5, tokens, frozenset()))
    _run(engine)
    assert runner.passes == [
        ("prefill", 0),
        ("prefill", 1),
        ("decode", 2),
        ("prefill", 1),
        ("decode", 2),
        ("decode", 1),
    ]


def test_a_request_joins_while_others_run() -> None:
    engine = Engine(LedgerRunner(4))
    first, late = _generation(1, 5, 12, frozenset()), _generation(2, 9, 12, frozenset())
    engine.add(first)
    for _ in range(4):
        plan = engine.plan()
        assert plan is not None
        engine.update(plan, engine.run(plan))
    engine.add(late)
    _run(engine)
    assert first.tokens == _alone(_generation(1, 5, 12, frozenset()))
    assert late.tokens == _alone(_generation(2, 9, 12, frozenset()))


def test_cancelled_rows_leave_and_the_others_are_untouched() -> None:
    engine = Engine(LedgerRunner(3))
    generations = [_generation(key, 4, 10, frozenset()) for key in range(5)]
    for generation in generations:
        engine.add(generation)
    for _ in range(5):
        plan = engine.plan()
        assert plan is not None
        engine.update(plan, engine.run(plan))
    engine.cancel(generations[0])
    engine.cancel(generations[4])
    _run(engine)
    assert generations[0].finished == generations[4].finished == "cancelled"
    assert len(generations[0].tokens) == 3
    assert generations[4].tokens == []
    for key in (1, 2, 3):
        assert generations[key].tokens == _alone(_generation(key, 4, 10, frozenset()))


def test_cancelling_what_has_finished_changes_nothing() -> None:
    engine = Engine(LedgerRunner(1))
    generation = _generation(1, 4, 3, frozenset())
    engine.add(generation)
    _run(engine)
    engine.cancel(generation)
    assert generation.finished == "length"


def test_clear_forgets_all() -> None:
    engine = Engine(LedgerRunner(1))
    for key in range(3):
        engine.add(_generation(key, 4, 5))
    plan = engine.plan()
    assert plan is not None
    engine.clear()
    assert engine.plan() is None


@pytest.mark.parametrize(("length", "tokens"), [(0, 5), (64, 1), (60, 5), (10, 0)])
def test_refuses_what_cannot_fit(length: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Engine(LedgerRunner(1)).add(_generation(1, length, tokens))


def test_the_context_can_be_filled_to_the_last_token() -> None:
    engine = Engine(LedgerRunner(2))
    generation = _generation(1, 60, 4, frozenset())
    engine.add(generation)
    _run(engine)
    assert len(generation.tokens) == 4
    assert generation.cached == 63
