"""Figures of a language model: what counts as JSON, and figures over all groups."""

from __future__ import annotations

import math

import pytest

from penstock_tuning.lm.evaluate import is_json_object, together


@pytest.mark.parametrize(
    ("text", "expected"), [('{"a": 1}', True), ("[1]", False), ('{"a": 1} x', False), ("", False), ('{"a": }', False)]
)
def test_only_a_lone_object_counts_as_json(text: str, expected: bool) -> None:
    assert is_json_object(text) is expected


def test_groups_count_by_their_tokens_and_bytes() -> None:
    one = {"perplexity": 4.0, "tokens": 300, "bytes": 600, "bits_per_byte": 1.0}
    other = {"perplexity": 16.0, "tokens": 100, "bytes": 100, "bits_per_byte": 4.0}
    found = together({"one": one, "other": other})
    assert found["perplexity"] == pytest.approx(math.exp((300 * math.log(4) + 100 * math.log(16)) / 400))
    assert found["bits_per_byte"] == pytest.approx((300 * 2 + 100 * 4) / 700)
    assert "fp32_bits_per_byte" not in found
    compared = {"fp32_bits_per_byte": 2.0, "same_next_token": 0.9}
    found = together({"one": one | compared, "other": other | compared | {"same_next_token": 0.5}})
    assert found["fp32_bits_per_byte"] == pytest.approx(2.0)
    assert found["same_next_token"] == pytest.approx(0.8)
