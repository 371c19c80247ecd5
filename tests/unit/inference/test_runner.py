"""The ONNX session and its cache pool, on the tiny model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock.contracts.errors import ConfigurationError
from penstock_inference.layout import ModelLayout
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.scheduler import GRID

TINY = Path(__file__).parents[2] / "fixtures" / "tiny-lm"
SHIPPED = Path(__file__).parents[3] / "deploy" / "models" / "penstock-lm"
CASES = json.loads((TINY / "greedy.json").read_text())


def _copy(tmp_path: Path, **decoder: object) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["decoder"].update(decoder)
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def _greedy(runner: OnnxRunner, prompts: list[list[int]], count: int) -> list[list[int]]:
    """All prompts side by side, each in its row."""
    answers = [[int(runner.prefill(row, 0, prompt)[0].argmax())] for row, prompt in enumerate(prompts)]
    for _ in range(count - 1):
        lengths = [len(prompt) + len(answer) - 1 for prompt, answer in zip(prompts, answers, strict=True)]
        logits = runner.decode([answer[-1] for answer in answers], lengths)
        for answer, row in zip(answers, logits, strict=True):
            answer.append(int(row.argmax()))
    return answers


@pytest.mark.parametrize("graph", ["model.onnx", "model-positions.onnx"])
def test_rows_side_by_side_equal_the_reference(tmp_path: Path, graph: str) -> None:
    runner = OnnxRunner(ModelLayout.read(_copy(tmp_path, filename=graph)), Limits(rows=8))
    cases = CASES[:8]
    answers = _greedy(runner, [case["prompt_ids"] for case in cases], 64)
    assert answers == [case["output_ids"] for case in cases]


def test_logits_do_not_depend_on_the_batch() -> None:
    layout = ModelLayout.read(TINY)
    alone, many = OnnxRunner(layout, Limits(rows=1)), OnnxRunner(layout, Limits(rows=4))
    prompts = [case["prompt_ids"] for case in CASES[:4]]
    for row, prompt in enumerate(prompts):
        many.prefill(row, 0, prompt)
    together = many.decode([11, 12, 13, 14], [len(prompt) for prompt in prompts])
    for row, prompt in enumerate(prompts):
        alone.prefill(0, 0, prompt)
        np.testing.assert_array_equal(alone.decode([11 + row], [len(prompt)])[0], together[row])


def test_a_moved_row_goes_on_where_it_was_and_old_content_behind_it_does_not_matter() -> None:
    runner = OnnxRunner(ModelLayout.read(TINY), Limits(rows=2))
    prompt = CASES[0]["prompt_ids"]
    first = int(runner.prefill(1, 0, prompt)[0].argmax())
    expected = runner.decode([5, first], [1, len(prompt)])[1].copy()
    runner.prefill(0, 0, list(range(10, 200)))
    runner.move(1, 0, len(prompt))
    np.testing.assert_array_equal(runner.decode([first], [len(prompt)])[0], expected)


def test_a_shorter_context_can_be_set_and_is_filled_to_the_end() -> None:
    runner = OnnxRunner(ModelLayout.read(TINY), Limits(rows=1, context=32))
    assert runner.context_length == 32
    logits = runner.prefill(0, 0, list(range(10, 41)))
    assert np.isfinite(runner.decode([int(logits[0].argmax())], [31])).all()


def test_the_context_is_never_longer_than_the_models() -> None:
    assert OnnxRunner(ModelLayout.read(TINY), Limits(rows=1, context=9_999)).context_length == 256


@pytest.mark.parametrize("length", [64, 256])
def test_rows_keep_what_they_hold_when_the_pool_is_cut_anew(length: int) -> None:
    runner = OnnxRunner(ModelLayout.read(TINY), Limits(rows=8))
    runner.arrange(128, [])
    prompts = [case["prompt_ids"] for case in CASES[:3]]
    for row, prompt in enumerate(prompts):
        runner.prefill(row, 0, prompt)
    lengths = [len(prompt) for prompt in prompts]
    expected = runner.decode([11, 12, 13], lengths)
    runner.arrange(length, lengths)
    np.testing.assert_array_equal(runner.decode([11, 12, 13], lengths), expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_prompt_in_stretches_gives_the_same_logits_as_in_one_piece(seed: int) -> None:
    random = np.random.default_rng(seed)
    runner = OnnxRunner(ModelLayout.read(TINY), Limits(rows=2))
    prompt = random.integers(3, 350, int(random.integers(34, 200))).tolist()
    expected = runner.prefill(0, 0, prompt)
    for start in range(0, len(prompt), 2 * GRID):
        logits = runner.prefill(1, start, prompt[start : start + 2 * GRID])
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_block_read_from_one_row_serves_another() -> None:
    runner = OnnxRunner(ModelLayout.read(TINY), Limits(rows=3))
    prompt = list(range(10, 60))
    expected = runner.prefill(0, 0, prompt)
    for start in (0, 16):
        runner.write(2, start, runner.read(0, start, start + 16))
    np.testing.assert_allclose(runner.prefill(2, 32, prompt[32:]), expected, atol=1e-5)


def test_memory_is_planned_and_what_does_not_fit_at_once_has_fewer_or_shorter_rows() -> None:
    layout = ModelLayout.read(TINY)
    runner = OnnxRunner(layout, Limits(rows=8))
    assert runner.memory_bytes == 2 * 2 * 8 * 2 * 256 * 16 * 4 + 8 * 352 * 4
    small = OnnxRunner(layout, Limits(rows=256, memory_mib=4))
    assert small.memory_bytes <= 4 << 20
    assert small.cache_tokens == ((4 << 20) - 256 * 352 * 4) // 512
    small.arrange(64, [])
    small.decode([5] * (small.cache_tokens // 64), [1] * (small.cache_tokens // 64))


def test_memory_that_is_too_little_for_one_row_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_INFERENCE_MEMORY_MIB.*PENSTOCK_INFERENCE_CONTEXT"):
        OnnxRunner(ModelLayout.read(SHIPPED), Limits(memory_mib=2))


def test_refuses_a_file_that_is_no_graph(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_MODEL_DIR: ONNX Runtime cannot open"):
        OnnxRunner(ModelLayout.read(folder), Limits())


@pytest.mark.parametrize(
    ("decoder", "says"),
    [
        ({"num_hidden_layers": 1}, "past_key_values.1.key"),
        ({"num_hidden_layers": 3}, "past_key_values.2.key"),
    ],
)
def test_refuses_a_graph_that_is_not_as_declared(tmp_path: Path, decoder: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_MODEL_DIR: ") as refused:
        OnnxRunner(ModelLayout.read(_copy(tmp_path, **decoder)), Limits())
    assert says in refused.value.message


def test_refuses_a_graph_without_the_declared_output(tmp_path: Path) -> None:
    outputs = {"logits": "scores", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    with pytest.raises(ConfigurationError, match="has no output scores"):
        OnnxRunner(ModelLayout.read(_copy(tmp_path, outputs=outputs)), Limits())


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    script = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("at import:", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
import penstock_inference.app
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["at import: 1"]
