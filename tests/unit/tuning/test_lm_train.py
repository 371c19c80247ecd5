"""The schedule of the three phases; training itself needs the `train` extra."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_tuning.lm.config import LmConfig
from penstock_tuning.lm.errors import CheckpointMissingError, PreparedDataMissingError
from penstock_tuning.lm.evaluate import evaluate, is_json_object
from penstock_tuning.lm.train import Batches, learning_rate

CONFIG = LmConfig(
    warmup_steps=4, pretrain_steps=10, tune_steps=20, decay_steps=5, polish_steps=10,
    learning_rate=1.0, tune_learning_rate=0.5, polish_learning_rate=0.25, final_lr_fraction=0.1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.25), (3, 1.0), (9, 1.0), (10, 0.5), (24, 0.5), (26, 0.4), (29, 0.1), (30, 0.25), (35, 0.125), (39, 0.025)],
)
def test_the_rate_follows_the_phases(step: int, rate: float) -> None:
    assert learning_rate(step, CONFIG) == pytest.approx(rate)


def test_unprepared_work_folders_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(PreparedDataMissingError, match="run `prepare` first"):
        Batches(tmp_path, CONFIG)
    with pytest.raises(PreparedDataMissingError, match="run `prepare` first"):
        evaluate(tmp_path, tmp_path, CONFIG, 1)
    assert not issubclass(CheckpointMissingError, PreparedDataMissingError)


@pytest.mark.parametrize(
    ("text", "expected"), [('{"a": 1}', True), ("[1]", False), ('{"a": 1} x', False), ("", False), ('{"a": }', False)]
)
def test_only_a_lone_object_counts_as_json(text: str, expected: bool) -> None:
    assert is_json_object(text) is expected
