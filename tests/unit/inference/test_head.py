"""The vocabulary head over chosen positions: equal logits, and graphs that are left alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from penstock.models.protobuf import field, fields
from penstock_inference.head import POSITIONS, choosing
from penstock_inference.layout import ModelLayout
from penstock_inference.runner import Limits, OnnxRunner

FIXTURES = Path(__file__).parents[2] / "fixtures"
TINY = FIXTURES / "tiny-lm"
SHIPPED = Path(__file__).parents[3] / "deploy" / "models" / "penstock-lm"
GRAPH, NODE, INITIALIZER, OUTPUT = 7, 1, 5, 12
VOCABULARY = 352


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    return field(
        NODE, b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, output) + field(4, operator)
    )


def _constant(name: str, dims: Sequence[int], values: npt.NDArray[np.float32]) -> bytes:
    return field(
        INITIALIZER, b"".join(field(1, dim) for dim in dims) + field(2, 1) + field(8, name) + field(9, values.tobytes())
    )


def _tailed(model: bytes, *tail: bytes) -> bytes:
    """The model with its head's product named `raw`, and more behind it."""
    (graph,) = (part for part in fields(memoryview(model)) if part.number == GRAPH)
    out = []
    for part in fields(graph.content):
        if part.number == NODE and bytes(field(2, "logits")) in bytes(part.raw):
            renamed = (field(2, "raw") if each.number == 2 else bytes(each.raw) for each in fields(part.content))
            out += [field(NODE, b"".join(renamed)), *tail]
        else:
            out.append(bytes(part.raw))
    changed = field(GRAPH, b"".join(out))
    return b"".join(changed if part.number == GRAPH else bytes(part.raw) for part in fields(memoryview(model)))


def _session(model: bytes, folder: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _logits(
    model: bytes, folder: Path, ids: Sequence[Sequence[int]], positions: Sequence[int] | None = None
) -> npt.NDArray[np.float32]:
    session, layout = _session(model, folder), ModelLayout.read(folder)
    feeds = {"input_ids": np.asarray(ids, np.int64), "attention_mask": np.ones((len(ids), len(ids[0])), np.int64)}
    for node in session.get_inputs():
        if node.name.startswith("past_key_values"):
            feeds[node.name] = np.zeros((len(ids), layout.kv_heads, len(ids[0]), layout.head_size), np.float32)
    if positions is not None:
        feeds[POSITIONS] = np.asarray(positions, np.int64)
    logits: npt.NDArray[np.float32] = session.run(["logits"], feeds)[0]
    return logits


@pytest.mark.parametrize("positions", [[8], [0, 3], []])
@pytest.mark.parametrize("folder", [TINY, SHIPPED])
def test_chosen_logits_are_those_of_the_whole_graph(folder: Path, positions: list[int]) -> None:
    model = (folder / "model.onnx").read_bytes()
    changed = choosing(model, "logits")
    assert changed is not None
    ids = [[11, 12, 13, 14, 15, 16, 17, 18, 19], [31, 32, 33, 34, 35, 36, 37, 38, 39]]
    chosen = _logits(changed, folder, ids, positions)
    assert chosen.shape[1] == len(positions)
    np.testing.assert_allclose(chosen, _logits(model, folder, ids)[:, positions], atol=1e-4)


def _constant_node(name: str, value: float) -> bytes:
    tensor = field(2, 1) + field(9, np.array([value], np.float32).tobytes())
    attribute = field(1, "value") + field(5, tensor) + field(20, 4)
    return field(NODE, field(2, name) + field(3, name) + field(4, "Constant") + field(5, attribute))


def _scaled(model: bytes) -> bytes:
    return _tailed(
        model,
        _constant("bias", [VOCABULARY], np.linspace(-1, 1, VOCABULARY, dtype=np.float32)),
        _constant_node("cap", 30.0),
        _node("Add", ["raw", "bias"], "biased"),
        _node("Div", ["biased", "cap"], "small"),
        _node("Tanh", ["small"], "squashed"),
        _node("Mul", ["cap", "squashed"], "logits"),
    )


def test_a_bias_and_a_soft_cap_may_follow_the_head() -> None:
    model = _scaled((TINY / "model.onnx").read_bytes())
    changed = choosing(model, "logits")
    assert changed is not None
    ids = [list(range(20, 50))]
    whole = _logits(model, TINY, ids)
    np.testing.assert_allclose(_logits(changed, TINY, ids, [29]), whole[:, [29]], atol=1e-4)
    plain = _logits((TINY / "model.onnx").read_bytes(), TINY, ids)
    assert not np.allclose(whole, plain, atol=0.1)


def _per_position(model: bytes) -> bytes:
    values = np.arange(9, dtype=np.float32)
    return _tailed(model, _constant("each", [9, 1], values), _node("Add", ["raw", "each"], "logits"))


def _read_twice(model: bytes) -> bytes:
    return _tailed(model, _node("Identity", ["raw"], "logits"), _node("ReduceSum", ["raw"], "sum"))


def _mixing_positions(model: bytes) -> bytes:
    return _tailed(model, _node("Softmax", ["raw"], "logits"))


def _cut_short(model: bytes) -> bytes:
    return model[:-9]


def _no_graph(model: bytes) -> bytes:
    return b"no graph"


def _changed_already(model: bytes) -> bytes:
    changed = choosing(model, "logits")
    assert changed is not None
    return changed


@pytest.mark.parametrize(
    "odd", [_per_position, _read_twice, _mixing_positions, _cut_short, _no_graph, _changed_already]
)
def test_what_is_not_understood_is_left_alone(odd: object) -> None:
    assert callable(odd)
    model = (TINY / "model.onnx").read_bytes()
    assert choosing(odd(model), "logits") is None


def test_a_graph_with_another_end_or_no_such_output_is_left_alone() -> None:
    assert choosing((TINY / "model-positions.onnx").read_bytes(), "logits") is None
    assert choosing((TINY / "model.onnx").read_bytes(), "hidden") is None


def test_the_runner_needs_logits_of_its_rows_alone_and_none_in_the_middle_of_a_prompt() -> None:
    layout = ModelLayout.read(TINY)
    runner = OnnxRunner(layout, Limits(rows=2))
    prompt = list(range(20, 80))
    whole = runner.prefill(0, 0, prompt)
    assert whole.shape == (1, VOCABULARY)
    assert runner.prefill(1, 0, prompt[:32], last=False).shape == (0, VOCABULARY)
    np.testing.assert_allclose(runner.prefill(1, 32, prompt[32:]), whole, atol=1e-5)
    cache = 2 * 2 * 2 * 2 * 256 * 16 * 4
    assert runner.memory_bytes == cache + 2 * VOCABULARY * 4
