"""Choosing tokens: greedy, temperature, top-k, top-p, min-p, penalties, what is allowed, likelihoods, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.events import GenerationParameters
from penstock_inference.engine import Logits
from penstock_inference.sampler import Chosen, Sampler, _draw, _highest, _nucleus, _weights, resolve_seed

LOGITS: Logits = np.log(np.array([0.1, 0.5, 0.05, 0.3, 0.05], dtype=np.float32))


def _sampler(temperature: float, top_p: float = 1.0, seed: int = 0, prompt: Sequence[int] = (), **more: Any) -> Sampler:
    parameters = GenerationParameters(model="m", max_tokens=9, temperature=temperature, top_p=top_p, **more)
    return Sampler(parameters, seed, prompt)


def _draws(sampler: Sampler, count: int, logits: Logits = LOGITS) -> list[int]:
    return [sampler.choose(logits) for _ in range(count)]


def test_temperature_zero_takes_the_likeliest_and_the_lowest_of_equals() -> None:
    assert _draws(_sampler(0.0, 0.1, 1), 3) == [1, 1, 1]
    assert _sampler(0.0, 1.0, 1).choose(np.array([0, 3, 3], dtype=np.float32)) == 1


@pytest.mark.parametrize("top_p", [1.0, 0.99999])
def test_draws_follow_the_probabilities(top_p: float) -> None:
    counts = np.bincount(_draws(_sampler(1.0, top_p, 5), 20_000), minlength=5) / 20_000
    np.testing.assert_allclose(counts, np.exp(LOGITS), atol=0.015)


def test_temperature_flattens_and_sharpens() -> None:
    def share(temperature: float) -> float:
        return float(np.mean(np.array(_draws(_sampler(temperature, 1.0, 5), 5_000)) == 1))

    squared = np.exp(LOGITS) ** 2
    assert share(0.5) == pytest.approx(float(squared[1] / squared.sum()), abs=0.03)
    assert share(2.0) < share(1.0) < share(0.5)


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, {1}), (0.49, {1}), (0.79, {1, 3}), (0.89, {0, 1, 3})])
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, kept: set[int]) -> None:
    assert set(_draws(_sampler(1.0, top_p, 3), 2_000)) == kept


@pytest.mark.parametrize("size", [1, 64, 65, 1024, 5_000, 80_000])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999999])
@pytest.mark.parametrize("spread", [0.0, 0.3, 5.0])
def test_the_short_way_to_the_nucleus_is_the_same_as_a_full_sort(size: int, top_p: float, spread: float) -> None:
    # rounded, so that many are equal
    scores = np.round(np.random.default_rng(size).normal(0, 1, size) * spread, 1).astype(np.float32)
    weights = _weights(scores, 1.0)
    order = np.argsort(-scores, kind="stable")
    cumulative = np.cumsum(weights[order], dtype=np.float64)
    expected = order[: int(np.searchsorted(cumulative, top_p * weights.sum(dtype=np.float64))) + 1]
    np.testing.assert_array_equal(_nucleus(scores, weights, top_p), np.sort(expected))


@pytest.mark.parametrize("size", [1, 63, 64, 65, 5_000])
@pytest.mark.parametrize("spread", [0.0, 0.3, 5.0])
def test_the_highest_are_those_of_a_full_sort(size: int, spread: float) -> None:
    scores = np.round(np.random.default_rng(size).normal(0, 1, size) * spread, 1).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    for count in {1, min(7, size), min(200, size), size}:
        np.testing.assert_array_equal(_highest(scores, count), np.sort(order[:count]))


@pytest.mark.parametrize("size", [1, 63, 64, 65, 5_000])
def test_a_draw_passes_the_weights_before_it(size: int) -> None:
    random = np.random.default_rng(size)
    weights = (random.random(size) * (random.random(size) < 0.7) + 1e-9).astype(np.float32)
    cumulative = np.cumsum(weights, dtype=np.float64) / weights.sum(dtype=np.float64)
    for draw in (0.0, *random.random(200), 1 - 2**-53):
        found = _draw(weights, float(draw))
        assert (cumulative[found - 1] if found else 0.0) <= draw + 1e-6
        assert draw <= cumulative[found] + 1e-6


def test_what_has_no_weight_is_never_drawn() -> None:
    weights = np.zeros(1_000, np.float32)
    weights[[70, 500, 501]] = 1e-3, 1, 1e-7
    drawn = {_draw(weights, float(draw)) for draw in (0.0, 5e-4, 0.3, 0.9999999, *1 - np.logspace(-16, -6, 60))}
    assert drawn == {70, 500, 501}


def test_same_seed_same_draws_other_seed_other_draws() -> None:
    first = _draws(_sampler(1.0, 0.9, 7), 50)
    assert _draws(_sampler(1.0, 0.9, 7), 50) == first
    assert _draws(_sampler(1.0, 0.9, 8), 50) != first


def test_one_draw_for_each_token_whatever_the_logits() -> None:
    certain = np.array([0, 0, 90, 0, 0], dtype=np.float32)
    plain, mixed = _sampler(1.0, 0.9, 7), _sampler(1.0, 0.9, 7)
    plain.choose(LOGITS)
    assert mixed.choose(certain) == 2
    assert _draws(plain, 20) == _draws(mixed, 20)


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([1e30, -1e30, 0], dtype=np.float32)
    assert _draws(_sampler(1.0, 0.9, 1), 5, logits) == [0] * 5
    assert _draws(_sampler(1e-3, 1.0, 1), 5, logits) == [0] * 5
    assert _draws(_sampler(1e-320, 0.5, 1), 5) == _draws(_sampler(1e-320, 1.0, 1), 5) == [1] * 5


def test_seed_is_the_requests_or_comes_from_its_id() -> None:
    assert resolve_seed(42, "a") == 42
    assert resolve_seed(0, "a") == 0
    assert resolve_seed(-1, "a") == 2**64 - 1
    assert resolve_seed(None, "a") == resolve_seed(None, "a") != resolve_seed(None, "b")


@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, {1}), (2, {1, 3}), (3, {0, 1, 3}), (4, {0, 1, 2, 3}), (9, {0, 1, 2, 3, 4})]
)
def test_top_k_keeps_so_many_and_of_equals_the_lowest(top_k: int, kept: set[int]) -> None:
    assert set(_draws(_sampler(1.0, seed=3, top_k=top_k), 2_000)) == kept


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, {0, 1, 2, 3, 4}), (0.15, {0, 1, 3}), (0.3, {1, 3}), (1.0, {1})])
@pytest.mark.parametrize("top_p", [1.0, 0.99999])
def test_min_p_keeps_what_is_likely_beside_the_likeliest(min_p: float, top_p: float, kept: set[int]) -> None:
    assert set(_draws(_sampler(1.0, top_p, 3, min_p=min_p), 2_000)) == kept


def test_top_p_counts_what_top_k_left() -> None:
    # of 0.5 and 0.3, the first is 0.625 of the whole
    assert set(_draws(_sampler(1.0, 0.6, 3, top_k=2), 2_000)) == {1}
    assert set(_draws(_sampler(1.0, 0.6, 3), 2_000)) == {1, 3}


def test_presence_counts_a_token_once_and_frequency_each_time() -> None:
    logits: Logits = np.array([0.0, 1.0, 0.45], dtype=np.float32)
    assert _draws(_sampler(0.0, presence_penalty=0.5), 4, logits) == [1, 1, 1, 1]
    assert _draws(_sampler(0.0, presence_penalty=0.6), 4, logits) == [1, 2, 1, 1]
    assert _draws(_sampler(0.0, frequency_penalty=0.3), 5, logits) == [1, 1, 2, 1, 2]
    assert _draws(_sampler(0.0, presence_penalty=-2), 3, logits) == [1, 1, 1]


def test_repetition_counts_prompt_and_answer_and_works_on_either_side_of_zero() -> None:
    logits: Logits = np.array([-1.0, 1.0, 0.7], dtype=np.float32)
    assert _draws(_sampler(0.0, repetition_penalty=1.5), 3, logits) == [1, 2, 1]
    assert _draws(_sampler(0.0, repetition_penalty=1.5, prompt=[1, 1]), 2, logits) == [2, 1]
    below: Logits = np.array([-1.0, -1.2, -9.0], dtype=np.float32)
    assert _draws(_sampler(0.0, repetition_penalty=1.5, prompt=[0]), 1, below) == [1]


def test_penalties_leave_the_models_logits_alone() -> None:
    logits = LOGITS.copy()
    _draws(_sampler(0.0, repetition_penalty=1.5, presence_penalty=1.0, prompt=[1]), 3, logits)
    np.testing.assert_array_equal(logits, LOGITS)


class Odd:
    """Allows odd ids alone, and remembers."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.masks = 0

    def allows(self, token: int) -> bool:
        return bool(token % 2)

    def allowed(self) -> Any:
        self.masks += 1
        return np.arange(5) % 2 == 1

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def test_a_greedy_choice_that_is_allowed_needs_no_mask() -> None:
    odd = Odd()
    sampler = Sampler(GenerationParameters(model="m", max_tokens=9, temperature=0.0), 1, (), odd)
    assert sampler.choose(np.array([0.0, 2.0, 1.0, 0.5, 0.0], dtype=np.float32)) == 1
    assert odd.masks == 0
    assert sampler.choose(np.array([0.0, 0.5, 1.0, 0.75, 0.0], dtype=np.float32)) == 3
    assert odd.masks == 1
    assert odd.accepted == [1, 3]


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (2.0, 0.999)])
@pytest.mark.parametrize("more", [{}, {"top_k": 3}, {"min_p": 0.01}])
def test_only_what_is_allowed_is_chosen(temperature: float, top_p: float, more: dict[str, float]) -> None:
    odd = Odd()
    parameters = GenerationParameters(model="m", max_tokens=9, temperature=temperature, top_p=top_p, **more)
    logits: Logits = np.array([9, 0, 8, 1, 7], dtype=np.float32)
    drawn = _draws(Sampler(parameters, 1, (), odd), 300, logits)
    assert set(drawn) == ({3} if temperature == 0.0 else {1, 3})
    assert odd.accepted == drawn


def test_likelihoods_are_the_bare_models() -> None:
    sampler = _sampler(0.0, logprobs=2, presence_penalty=2.0)
    assert _draws(sampler, 2) == [1, 3]
    assert sampler.chosen is not None
    first, second = sampler.chosen
    assert (first.token, second.token) == (1, 3)
    assert first.logprob == pytest.approx(float(np.log(0.5)), abs=1e-5)
    assert second.logprob == pytest.approx(float(np.log(0.3)), abs=1e-5)
    for each in (first, second):
        assert [token for token, _ in each.likeliest] == [1, 3]


def test_no_likelihoods_unless_asked_for_and_alternatives_only_then() -> None:
    silent, bare = _sampler(0.0), _sampler(0.0, logprobs=0)
    _draws(silent, 1)
    _draws(bare, 1)
    assert silent.chosen is None
    assert bare.chosen == [Chosen(1, pytest.approx(float(np.log(0.5)), abs=1e-5), ())]


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=80),
    temperature=st.sampled_from([0.0, 0.01, 1.0, 2.0]),
    top_p=st.floats(0.01, 1),
    more=st.fixed_dictionaries(
        {},
        optional={
            "top_k": st.integers(1, 100),
            "min_p": st.floats(0, 1),
            "presence_penalty": st.floats(-2, 2),
            "frequency_penalty": st.floats(-2, 2),
            "repetition_penalty": st.floats(0.1, 2),
            "logprobs": st.integers(0, 20),
        },
    ),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_parameters_give_a_token_and_the_same_one_again(
    logits: list[float], temperature: float, top_p: float, more: dict[str, Any], seed: int
) -> None:
    array: Logits = np.array(logits, dtype=np.float32)
    first, again = (_draws(_sampler(temperature, top_p, seed, [0], **more), 5, array) for _ in range(2))
    assert first == again
    assert all(0 <= token < len(logits) for token in first)
