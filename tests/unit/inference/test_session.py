"""What runs a model: the CPU, or a CUDA device where it is asked for."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from tests.support.equality import How, read, run

from penstock.contracts.errors import ConfigurationError
from penstock_inference.head import POSITIONS
from penstock_inference.layout import ModelLayout
from penstock_inference.session import CUDA, open_session

FIXTURES = Path(__file__).parents[2] / "fixtures"
TINY = FIXTURES / "tiny-lm"
SPINNING = ["intra_op.allow_spinning", "intra_op.spin_duration_us"]


def test_the_head_is_chosen_where_the_graph_is_understood(tmp_path: Path) -> None:
    session = open_session(ModelLayout.read(TINY), 1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert POSITIONS in {node.name for node in session.get_inputs()}
    for name in ("genai_config.json", "tokenizer.json", "model.onnx.data"):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes((TINY / "model-positions.onnx").read_bytes())
    plain = open_session(ModelLayout.read(tmp_path), 1)
    assert POSITIONS not in {node.name for node in plain.get_inputs()}


def test_threads_wait_awake_as_long_as_they_are_told() -> None:
    layout = ModelLayout.read(TINY)
    options = open_session(layout, 2, spin_us=70).get_session_options()
    found = [options.get_session_config_entry(f"session.{name}") for name in SPINNING]
    assert found == ["1", "70"]
    assert open_session(layout, 2).get_session_options().get_session_config_entry(f"session.{SPINNING[0]}") == "0"


def test_cuda_without_its_package_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_INFERENCE_PROVIDER: cuda needs onnxruntime-gpu"):
        open_session(ModelLayout.read(TINY), 1, "cuda")


def test_cuda_without_a_device_is_refused_and_does_not_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnTheCpu:
        """As onnxruntime-gpu does where its libraries find no device: a warning, and a session on the CPU."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", OnTheCpu)
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_INFERENCE_PROVIDER: no CUDA device"):
        open_session(ModelLayout.read(TINY), 1, "cuda")


@pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="needs onnxruntime-gpu and a CUDA device")
def test_greedy_answers_on_a_cuda_device_equal_transformers() -> None:
    folder = FIXTURES / "equality" / "llama"
    cases = read(folder)
    ran = run(folder, cases, How(rows=8, provider="cuda"))
    assert ran.tokens == [case.answer for case in cases]
