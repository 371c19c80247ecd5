"""Which examples a run without an ingredient reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.tiny_heads import config, examples, tokenizer

from penstock_tuning.data.example import Example
from penstock_tuning.heads import prepare as preparing
from penstock_tuning.heads.errors import HeadsConfigError
from penstock_tuning.heads.ingredients import belongs


def example(kind: str, value: int = 0, augmented: str = "") -> Example:
    return Example("text", "source", kind, "en", labels={"injection": value}, augmented=augmented)


@pytest.mark.parametrize(
    ("ingredient", "left_out", "kept"),
    [
        ("augmentation", example("chat", augmented="typos"), example("chat")),
        ("hard_negatives", example("talked_about", augmented="talked_about"), example("direct", 1)),
        ("hard_negatives", example("identity"), example("identity", 1)),
        ("breadth", example("coding"), example("chat")),
        ("breadth", example("tools"), example("tools", 1)),
    ],
)
def test_an_ingredient_left_out_takes_its_examples_alone(ingredient: str, left_out: Example, kept: Example) -> None:
    assert not belongs(left_out, "safety", [ingredient])
    assert belongs(left_out, "safety", [])
    assert belongs(kept, "safety", [ingredient])


def test_what_only_safety_has_takes_nothing_from_other_tasks() -> None:
    assert belongs(example("coding"), "pii", ["breadth", "hard_negatives"])
    assert not belongs(example("coding", augmented="casing"), "pii", ["augmentation"])


def test_training_reads_none_of_it_and_the_texts_kept_apart_stay(tmp_path: Path) -> None:
    rows = [*examples("safety", "train"), *[example("coding") for _ in range(7)]]
    kept = {}
    for without in ("[]", "[breadth]"):
        recipe = config(f"without={without}")
        card = preparing.make_rows(recipe, tokenizer(), tmp_path, "safety", train=iter(rows), validation=iter(rows[:9]))
        kept[without] = (card["texts"], card["held_out"])
    assert kept["[]"][0] - kept["[breadth]"][0] == 7
    assert kept["[]"][1] == kept["[breadth]"][1]


def test_the_digest_tells_them_apart_and_an_unknown_one_is_refused() -> None:
    assert config().digest() != config("without=[breadth]").digest()
    with pytest.raises(HeadsConfigError, match="without"):
        config("without=[luck]")
