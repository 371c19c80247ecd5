"""Generated samples: what they ask for is in the prompt, and the wanted answer has it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from penstock_tuning.lm.generator import Source, Split, samples
from penstock_tuning.lm.vocabulary import PLACEHOLDER_TYPES

CARRIERS = ["I would like a coffee with milk", "the train to the city is late again today"]


def prompt(turns: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(text for _, text in turns[:-1])


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("carriers", [[], CARRIERS])
def test_every_placeholder_to_quote_is_asked_and_answered(split: Split, carriers: list[str]) -> None:
    for sample in samples(5, split, 3000, carriers):
        answer = sample.turns[-1][1]
        for mark in sample.quotes:
            assert mark in prompt(sample.turns)
            assert mark in answer
        assert "{" not in answer or sample.is_json


def test_an_answer_quotes_nothing_that_was_not_said() -> None:
    for sample in samples(6, "train", 3000, CARRIERS):
        words = sample.turns[-1][1].replace("<", " <").replace(">", "> ").split()
        for mark in (word for word in words if word.startswith("<")):
            assert mark in prompt(sample.turns), sample


def test_json_answers_are_one_object_holding_the_quotes() -> None:
    found = [sample for sample in samples(7, "held_out", 3000) if sample.is_json]
    assert len(found) > 200
    for sample in found:
        value = json.loads(sample.turns[-1][1])
        assert isinstance(value, dict)
        assert value


def test_turns_alternate_and_end_with_the_answer() -> None:
    for sample in samples(8, "train", 2000, CARRIERS):
        roles = [role for role, _ in sample.turns if role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert "system" not in [role for role, _ in sample.turns[1:]]
        assert all(text.strip() for _, text in sample.turns)


def test_the_same_seed_gives_the_same_samples() -> None:
    assert list(samples(9, "train", 200)) == list(samples(9, "train", 200))
    assert list(samples(9, "train", 200)) != list(samples(10, "train", 200))


def test_the_splits_share_no_quoting_prompt() -> None:
    train = {prompt(sample.turns) for sample in samples(11, "train", 20_000) if sample.kind == "repeat"}
    held_out = {prompt(sample.turns) for sample in samples(11, "held_out", 3000) if sample.kind == "repeat"}
    assert held_out
    assert not train & held_out


def test_the_last_of_a_longer_list_is_for_held_out_samples_only() -> None:
    train, held_out = Source(1, "train"), Source(1, "held_out")
    assert {train.pick("abcd") for _ in range(200)} == set("abc")
    assert {held_out.pick("abcd") for _ in range(200)} == {"d"}
    assert {train.pick("ab") for _ in range(200)} == set("ab")


def test_all_kinds_and_placeholder_types_occur() -> None:
    kinds: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for sample in samples(12, "train", 4000, CARRIERS):
        kinds[sample.kind] += 1
        types.update(mark.strip("<>").rsplit("_", 1)[0] for mark in sample.quotes)
    assert set(kinds) == {
        "contact",
        "sentence",
        "repeat",
        "note",
        "letter",
        "recall",
        "json",
        "short",
        "request",
        "detail",
    }
    assert set(types) == set(PLACEHOLDER_TYPES)
    assert min(types.values()) > 50
