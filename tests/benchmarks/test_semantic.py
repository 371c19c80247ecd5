"""The evaluation of the semantic cache: it counts right and wrong hits as they are, and chooses a threshold by them."""

from __future__ import annotations

import numpy as np
import pytest
from tests.benchmarks.semantic.baseline import NGrams
from tests.benchmarks.semantic.measure import GUARDS, MOST_WRONG, WHOLE, Nearest, choose, fooled, nearest
from tests.benchmarks.semantic.sets import Asked, QuestionSet, split
from tests.benchmarks.semantic.twins import twins

KEPT = [Asked("where is my card", "card"), Asked("how do I pay", "pay"), Asked("refund order 17", "refund-17")]
ASKED = [
    Asked("where is my new card", "card"),
    Asked("how can I pay", "pay"),
    Asked("refund order 71", "refund-71"),
    Asked("weather tomorrow", "weather"),
]


def test_hits_and_wrong_hits_are_counted_as_they_are() -> None:
    found = nearest(NGrams([each.text for each in KEPT]), KEPT, ASKED, GUARDS["none"])
    assert list(found.right) == [True, True, False, False]
    assert list(found.kept) == [True, True, False, False]
    rates = found.at(0.5)
    assert (rates.hit, rates.wrong, rates.misled, rates.hits) == (1.0, pytest.approx(1 / 3), 0.25, 3)
    assert nearest(NGrams([]), KEPT, ASKED, GUARDS[WHOLE]).at(0.5).wrong == 0


def test_the_threshold_is_the_lowest_that_keeps_wrong_hits_rare() -> None:
    cosines = np.linspace(0.5, 0.99, 400, dtype=np.float32)
    found = Nearest(cosines, cosines > 0.8, np.ones(400, np.bool_))
    chosen = choose([found])
    assert 0.79 <= chosen <= 0.81
    assert found.at(chosen).wrong <= MOST_WRONG < found.at(chosen - 0.02).wrong
    assert choose([Nearest(cosines, cosines < 0, cosines > 0)]) > 0.99


def test_twins_fool_what_is_not_guarded() -> None:
    kept = [Asked(text, text) for text in ("refund order 17 please", "who wrote to Margaret there", "Is it safe to go")]
    sets = [QuestionSet("some", kept, [], [])]
    encoder = NGrams([])
    assert fooled(encoder, sets, 0.3, GUARDS["none"]) == {"number": 1, "name": 1, "negation": 1}
    assert fooled(encoder, sets, 0.3, GUARDS["numbers and placeholders"]) == {"number": 0, "name": 1, "negation": 1}
    assert fooled(encoder, sets, 0.3, GUARDS["and names"]) == {"number": 0, "name": 0, "negation": 1}
    assert fooled(encoder, sets, 0.3, GUARDS[WHOLE]) == {"number": 0, "name": 0, "negation": 0}
    assert twins(["Is it not safe", "7 up"]) == {"number": [("7 up", "8 up")], "name": [], "negation": []}


def test_half_of_the_meanings_is_kept_and_all_are_asked() -> None:
    kept = [Asked(f"{meaning} {number}", meaning) for meaning in "abcdefgh" for number in range(5)]
    asked = [Asked(f"asked {meaning}", meaning) for meaning in "abcdefgh"]
    made = split("some", kept, asked, 2)
    assert len({each.meaning for each in made.kept}) == 4
    assert len(made.kept) == 8
    assert {each.text for each in [*made.chosen_by, *made.reported]} == {each.text for each in asked}
    assert len(made.chosen_by) == len(made.reported) == 4
