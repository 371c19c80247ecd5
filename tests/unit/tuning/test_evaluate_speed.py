"""Throughput: runs take turns and the median counts; the graphs to compare with are made as the shipped one is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from penstock_tuning.encoder.config import Shape
from penstock_tuning.evaluate import speed

FAKE = Path(__file__).parents[2] / "fixtures/fake-heads"


def test_runs_take_turns_after_one_to_warm_up() -> None:
    order: list[str] = []
    found = speed.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4
    assert set(found) == {"a", "b"}


def test_slower_work_takes_longer() -> None:
    found = speed.in_turns({"short": lambda: sum(range(20_000)), "long": lambda: sum(range(400_000))}, 5)
    assert found["long"] > 5 * found["short"] > 0


def test_the_numbers_of_minilm_have_its_weights() -> None:
    layer = 4 * 384**2 + 2 * 384 * 1536
    plain = Shape(vocabulary=300, context=64, **speed.MINILM_PLAIN)
    assert speed.int8_operations(plain) == speed.ROWS * speed.TOKENS * 6 * layer
    assert speed.int8_operations(Shape(vocabulary=300, context=64, **speed.MINILM)) > 1.2 * speed.int8_operations(plain)


def test_a_folder_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="onnx is an extra of penstock-tuning (abuse)")
    small = {"width": 64, "layers": 2, "heads": 4, "feed_forward": 128}
    monkeypatch.setattr(speed, "MINILM", small)
    monkeypatch.setattr(speed, "MINILM_PLAIN", small | {"layers": 1})
    monkeypatch.setattr(speed, "TURNS", 3)
    folder = tmp_path / "model"
    shutil.copytree(FAKE, folder)
    found = speed.measure(folder, tmp_path / "work")
    assert found.minilm_plain > 1.3 * found.minilm > 0, "half of the layers"
    assert found.encoder > found.minilm, "a table is faster than a network"
    assert found.int8_limit > 0.1 and found.float_limit > 0.1
    assert found.share > 0
    graphs = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.onnx")}
    assert len(graphs) == 2
    speed.measure(folder, tmp_path / "work")
    assert graphs == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.onnx")}
