"""Greedy answers of two small architectures equal transformers', however they are run; seeds decide sampled ones.

The short form of `make eval-equality`; the answers are recorded by `tests/equality/reference.py --small`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.equality import ALONE, WAYS, How, read, run, sampled

FIXTURES = Path(__file__).parents[2] / "fixtures" / "equality"
MODELS = ("llama", "qwen2")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", WAYS)
def test_greedy_equals_transformers_token_for_token(model: str, name: str) -> None:
    cases, how = read(FIXTURES / model), WAYS[name]
    assert len(cases) >= 24
    assert not any(case.close for case in cases)
    ran = run(FIXTURES / model, cases, how)
    assert ran.tokens == [case.answer for case in cases]
    assert ran.most_rows == how.rows
    assert (ran.reused > 0) == (how.prefix_mib > 0)
    if how.step_tokens < 90:
        assert ran.pieces > 0
    if how.changing is not None:
        assert ran.left > 0
        assert ran.batches > 10


@pytest.mark.parametrize("model", MODELS)
def test_recorded_answers_end_in_either_way_and_are_no_loops(model: str) -> None:
    cases = read(FIXTURES / model)
    full = [len(case.answer) == case.max_tokens for case in cases]
    assert any(full)
    assert not all(full)
    assert sum(len(set(case.answer)) for case in cases) > sum(len(case.answer) for case in cases) / 3


@pytest.mark.parametrize("model", MODELS)
def test_seeds_decide_sampled_answers_alone_and_beside_others(model: str) -> None:
    cases = read(FIXTURES / model)[:16]
    alone = run(FIXTURES / model, cases, ALONE, sampled(cases, 1)).tokens
    mixed = run(FIXTURES / model, cases, How(8, 48, 8, changing=5), sampled(cases, 1)).tokens
    other = run(FIXTURES / model, cases, ALONE, sampled(cases, 2)).tokens
    assert mixed == alone
    assert sum(one != two for one, two in zip(alone, other, strict=True)) > len(cases) / 2
