"""Plans run over a runner whose answers depend on what its rows hold."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import pytest

from penstock_inference.backend import RequestFault
from penstock_inference.engine import Engine, Logits
from penstock_inference.prefixes import Block, PrefixCache
from penstock_inference.scheduler import GRID, Generation

VOCABULARY = 50
EOS = 3


BLOCK = np.zeros(GRID, np.int64)


class LedgerRunner:
    """Keeps each row's tokens and answers by their hash: a wrong row, length, move or cut changes the answer."""

    def __init__(self, rows: int, context_length: int = 64, cache_tokens: int | None = None) -> None:
        self.rows = rows
        self.context_length = context_length
        self.cache_tokens = cache_tokens or rows * context_length
        self.held: list[list[int]] = []
        self.prefilled = 0
        self.refuses: int | None = None

    def arrange(self, row_length: int, kept: Sequence[int]) -> None:
        rows = min(self.rows, self.cache_tokens // row_length)
        self.held = [[*row[:length]] for row, length in zip(self.held, kept, strict=False)]
        self.held += [[] for _ in range(rows - len(self.held))]

    def prefill(self, row: int, start: int, ids: Sequence[int], *, last: bool = True) -> Logits:
        if self.refuses in ids:
            raise RuntimeError("refused")
        assert len(self.held[row]) >= start
        self.prefilled += len(ids)
        self.held[row] = [*self.held[row][:start], *ids]
        return np.stack([self._answer(row)])[: 1 if last else 0]

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        for row, (token, length) in enumerate(zip(ids, lengths, strict=True)):
            assert len(self.held[row]) >= length
            self.held[row] = [*self.held[row][:length], token]
        return np.stack([self._answer(row) for row in range(len(ids))])

    def move(self, source: int, target: int, length: int) -> None:
        self.held[target] = self.held[source][:length]

    def read(self, row: int, start: int, stop: int) -> Block:
        return np.array(self.held[row][start:stop])

    def write(self, row: int, start: int, block: Block) -> None:
        self.held[row] = [*self.held[row][:start], *block.tolist()]

    def _answer(self, row: int) -> Logits:
        digest = hashlib.sha256(bytes(self.held[row])).digest()
        logits: Logits = np.zeros(VOCABULARY, dtype=np.float32)
        logits[digest[0] % VOCABULARY] = 1.0
        return logits


def _greedy(generation: Generation, logits: Logits) -> int:
    return int(np.argmax(logits))


def _generation(key: int, length: int, max_tokens: int, eos: frozenset[int] = frozenset({EOS})) -> Generation:
    return Generation(key, [(key * 7 + each) % VOCABULARY for each in range(length)], max_tokens, eos)


def _run(engine: Engine) -> None:
    while engine.step():
        pass


def _mixed() -> list[Generation]:
    return [_generation(key, 1 + key * 3 % 37, 1 + key * 5 % 23) for key in range(40)]


def _alone(generation: Generation) -> list[int]:
    engine = Engine(LedgerRunner(1), _greedy)
    engine.add(generation)
    _run(engine)
    return generation.tokens


@pytest.mark.parametrize("rows", [1, 2, 8, 64])
@pytest.mark.parametrize("prefix_bytes", [0, 1 << 10, 1 << 20])
def test_every_row_gets_what_it_gets_alone(rows: int, prefix_bytes: int) -> None:
    engine = Engine(LedgerRunner(rows), _greedy, step_tokens=rows + 20, prefixes=PrefixCache(prefix_bytes, BLOCK))
    generations = _mixed()
    for generation in generations:
        engine.add(generation)
    _run(engine)
    assert [each.tokens for each in generations] == [_alone(each) for each in _mixed()]
    assert {each.finished for each in generations} == {"eos", "length"}


def test_a_request_joins_while_others_run() -> None:
    engine = Engine(LedgerRunner(4), _greedy)
    first, late = _generation(1, 5, 12, frozenset()), _generation(2, 9, 12, frozenset())
    engine.add(first)
    for _ in range(4):
        assert engine.step() == (first,)
    engine.add(late)
    _run(engine)
    assert first.tokens == _alone(_generation(1, 5, 12, frozenset()))
    assert late.tokens == _alone(_generation(2, 9, 12, frozenset()))


def test_cancelled_rows_leave_and_the_others_are_untouched() -> None:
    engine = Engine(LedgerRunner(3), _greedy)
    generations = [_generation(key, 4, 10, frozenset()) for key in range(5)]
    for generation in generations:
        engine.add(generation)
    for _ in range(5):
        engine.step()
    engine.cancel(generations[0])
    engine.cancel(generations[4])
    _run(engine)
    assert generations[0].finished == generations[4].finished == "cancelled"
    assert len(generations[0].tokens) == 3
    assert generations[4].tokens == []
    for key in (1, 2, 3):
        assert generations[key].tokens == _alone(_generation(key, 4, 10, frozenset()))


def test_cancelling_what_has_finished_changes_nothing() -> None:
    engine = Engine(LedgerRunner(1), _greedy)
    generation = _generation(1, 4, 3, frozenset())
    engine.add(generation)
    _run(engine)
    engine.cancel(generation)
    assert generation.finished == "length"


def test_the_context_can_be_filled_to_the_last_token() -> None:
    engine = Engine(LedgerRunner(2), _greedy)
    generation = _generation(1, 60, 4, frozenset())
    engine.add(generation)
    _run(engine)
    assert len(generation.tokens) == 4
    assert generation.cached == 63


def test_a_failing_prompt_is_its_requests_fault_alone() -> None:
    runner = LedgerRunner(3)
    engine = Engine(runner, _greedy)
    good, bad = _generation(1, 5, 12, frozenset()), _generation(2, 5, 12, frozenset())
    runner.refuses = bad.prompt[-1]
    engine.add(good)
    engine.add(bad)
    engine.step()
    with pytest.raises(RequestFault) as fault:
        engine.step()
    assert fault.value.key == 2
    _run(engine)
    assert good.tokens == _alone(_generation(1, 5, 12, frozenset()))


def test_a_failing_choice_is_its_requests_fault_and_the_others_tokens_are_not_lost() -> None:
    def choose(generation: Generation, logits: Logits) -> int:
        if generation.key == 2 and len(generation.tokens) == 4:
            raise ValueError("no token")
        return _greedy(generation, logits)

    engine = Engine(LedgerRunner(3), choose)
    generations = [_generation(key, 5, 12, frozenset()) for key in (1, 2, 3)]
    for generation in generations:
        engine.add(generation)
    faults, steps = [], 0
    while steps < 100:
        steps += 1
        try:
            if not engine.step():
                break
        except RequestFault as fault:
            faults.append(fault.key)
    assert faults == [2]
    for generation in (generations[0], generations[2]):
        assert generation.tokens == _alone(_generation(generation.key, 5, 12, frozenset()))


def test_a_request_given_up_takes_its_fault_with_it() -> None:
    def choose(generation: Generation, logits: Logits) -> int:
        if generation.key == 2 and generation.tokens:
            raise ValueError("no token")
        return _greedy(generation, logits)

    engine = Engine(LedgerRunner(2), choose)
    good, bad = _generation(1, 5, 5, frozenset()), _generation(2, 5, 5, frozenset())
    engine.add(good)
    engine.add(bad)
    while not bad.finished:
        engine.step()
    engine.cancel(bad)
    _run(engine)
    assert len(good.tokens) == 5


def test_a_failing_pass_over_all_rows_is_nobodys_fault_and_after_clear_work_goes_on() -> None:
    runner = LedgerRunner(2)
    engine = Engine(runner, _greedy)
    engine.add(_generation(1, 5, 5, frozenset()))
    engine.step()
    held, runner.held = runner.held, []
    with pytest.raises(IndexError):
        engine.step()
    runner.held = held
    engine.clear()
    assert engine.step() == ()
    generation = _generation(2, 5, 5, frozenset())
    engine.add(generation)
    _run(engine)
    assert generation.tokens == _alone(_generation(2, 5, 5, frozenset()))


def test_a_prompt_that_begins_as_an_earlier_one_runs_only_what_is_new() -> None:
    runner = LedgerRunner(2, 256)
    prefixes = PrefixCache(1 << 20, BLOCK)
    engine = Engine(runner, _greedy, prefixes=prefixes)
    beginning = [each % 41 for each in range(100)]
    answers = []
    for tail in ([1, 2, 3], [4, 5, 6], [1, 2, 3]):
        generation = Generation(0, beginning + tail, 8)
        engine.add(generation)
        _run(engine)
        answers.append(generation.tokens)
        expected = Generation(0, beginning + tail, 8)
        bare = Engine(LedgerRunner(1, 256), _greedy)
        bare.add(expected)
        _run(bare)
        assert generation.tokens == expected.tokens
    assert answers[0] == answers[2] != answers[1]
    assert runner.prefilled == 103 + 7 + 7
    assert (prefixes.reused_tokens, prefixes.computed_tokens) == (192, 117)


class Places:
    """Adapters of which `places` fit; that named `bad` cannot be had."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.used: list[list[str | None]] = []

    def admit(self, adapter: str | None, running: Collection[str | None]) -> bool:
        if adapter == "bad":
            raise ValueError("damaged")
        return len({*running, adapter} - {None}) <= self.places

    def use(self, adapters: Sequence[str | None]) -> None:
        self.used.append(list(adapters))


def _with(adapter: str | None, key: int, max_tokens: int = 4) -> Generation:
    generation = _generation(key, 5, max_tokens, frozenset())
    generation.adapter = adapter
    return generation


def test_rows_whose_adapters_have_no_room_wait_and_each_pass_is_told_its_rows() -> None:
    places = Places(1)
    engine = Engine(LedgerRunner(4), _greedy, adapters=places)
    generations = [_with("a", 1), _with(None, 2), _with("a", 3), _with("b", 4), _with("b", 5)]
    for generation in generations:
        engine.add(generation)
    _run(engine)
    assert [each.tokens for each in generations] == [_alone(_with(None, key)) for key in range(1, 6)]
    assert ["a", None, "a"] in places.used
    assert ["b", "b"] in places.used
    assert not any({"a", "b"} <= set(rows) for rows in places.used)


def test_an_adapter_that_cannot_be_had_is_the_fault_of_who_asks_alone() -> None:
    engine = Engine(LedgerRunner(4), _greedy, adapters=Places(2))
    good, bad, late = _with("a", 1), _with("bad", 2), _with(None, 3)
    engine.add(bad)
    with pytest.raises(RequestFault) as first:
        engine.step()
    again = _with("bad", 4)
    for generation in (good, again, late):
        engine.add(generation)
    faults = [first.value.key]
    for _ in range(30):
        try:
            engine.step()
        except RequestFault as fault:
            faults.append(fault.key)
    assert faults == [2, 4]
    assert (good.tokens, late.tokens) == (_alone(_with(None, 1)), _alone(_with(None, 3)))


def test_beginnings_are_kept_for_each_adapter_apart() -> None:
    runner = LedgerRunner(2, 256)
    engine = Engine(runner, _greedy, prefixes=PrefixCache(1 << 20, BLOCK), adapters=Places(2))
    for adapter in (None, "a", "b", "a", None):
        generation = Generation(0, list(range(40)), 2)
        generation.adapter = adapter
        engine.add(generation)
        _run(engine)
    assert runner.prefilled == 3 * 40 + 2 * 8
