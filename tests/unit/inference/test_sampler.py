"""Choosing tokens: greedy, temperature, nucleus, seeds."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_inference.engine import Logits
from penstock_inference.sampler import Sampler, _nucleus, resolve_seed

LOGITS: Logits = np.log(np.array([0.1, 0.5, 0.05, 0.3, 0.05], dtype=np.float32))


def _draws(sampler: Sampler, count: int, logits: Logits = LOGITS) -> list[int]:
    return [sampler.choose(logits) for _ in range(count)]


def test_temperature_zero_takes_the_likeliest_and_the_lowest_of_equals() -> None:
    assert _draws(Sampler(0.0, 0.1, 1), 3) == [1, 1, 1]
    assert Sampler(0.0, 1.0, 1).choose(np.array([0, 3, 3], dtype=np.float32)) == 1


@pytest.mark.parametrize("top_p", [1.0, 0.99999])
def test_draws_follow_the_probabilities(top_p: float) -> None:
    counts = np.bincount(_draws(Sampler(1.0, top_p, 5), 20_000), minlength=5) / 20_000
    np.testing.assert_allclose(counts, np.exp(LOGITS), atol=0.015)


def test_temperature_flattens_and_sharpens() -> None:
    def share(temperature: float) -> float:
        return float(np.mean(np.array(_draws(Sampler(temperature, 1.0, 5), 5_000)) == 1))

    squared = np.exp(LOGITS) ** 2
    assert share(0.5) == pytest.approx(float(squared[1] / squared.sum()), abs=0.03)
    assert share(2.0) < share(1.0) < share(0.5)


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, {1}), (0.49, {1}), (0.79, {1, 3}), (0.89, {0, 1, 3})])
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, kept: set[int]) -> None:
    assert set(_draws(Sampler(1.0, top_p, 3), 2_000)) == kept


@pytest.mark.parametrize("size", [1, 64, 65, 1024, 5_000])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999999])
@pytest.mark.parametrize("spread", [0.0, 0.3, 5.0])
def test_the_short_way_to_the_nucleus_is_the_same_as_a_full_sort(size: int, top_p: float, spread: float) -> None:
    # rounded, so that many weights are equal
    weights = np.exp(np.round(np.random.default_rng(size).normal(0, 1, size) * spread, 1))
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order])
    expected = order[: int(np.searchsorted(cumulative, top_p * weights.sum())) + 1]
    np.testing.assert_array_equal(_nucleus(weights, top_p), expected)


def test_same_seed_same_draws_other_seed_other_draws() -> None:
    first = _draws(Sampler(1.0, 0.9, 7), 50)
    assert _draws(Sampler(1.0, 0.9, 7), 50) == first
    assert _draws(Sampler(1.0, 0.9, 8), 50) != first


def test_one_draw_for_each_token_whatever_the_logits() -> None:
    certain = np.array([0, 0, 90, 0, 0], dtype=np.float32)
    plain, mixed = Sampler(1.0, 0.9, 7), Sampler(1.0, 0.9, 7)
    plain.choose(LOGITS)
    assert mixed.choose(certain) == 2
    assert _draws(plain, 20) == _draws(mixed, 20)


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([1e30, -1e30, 0], dtype=np.float32)
    assert _draws(Sampler(1.0, 0.9, 1), 5, logits) == [0] * 5
    assert _draws(Sampler(1e-3, 1.0, 1), 5, logits) == [0] * 5
    assert _draws(Sampler(1e-320, 0.5, 1), 5) == _draws(Sampler(1e-320, 1.0, 1), 5) == [1] * 5


def test_seed_is_the_requests_or_comes_from_its_id() -> None:
    assert resolve_seed(42, "a") == 42
    assert resolve_seed(0, "a") == 0
    assert resolve_seed(-1, "a") == 2**64 - 1
    assert resolve_seed(None, "a") == resolve_seed(None, "a") != resolve_seed(None, "b")
