"""The language model from random weights to a folder that the inference service loads; needs torch and the builder."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.pieces import assert_pieces_end_where_a_whole_run_does
from tests.support.tiny_lm import MEASURED, config, prepared

from penstock.models.folders import scan
from penstock_inference.layout import ModelLayout
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits
from penstock_tuning.errors import CheckpointMissingError
from penstock_tuning.lm.errors import ExportRejectedError
from penstock_tuning.lm.export import SUMS
from penstock_tuning.lm.runtime import load_tokenizer, prompt_ids

torch: Any = pytest.importorskip("torch", reason="torch is an extra of penstock-tuning (train)")
pytest.importorskip("transformers", reason="transformers is an extra of penstock-tuning (train)")
pytest.importorskip("onnx_ir", reason="onnx_ir is an extra of penstock-tuning (train)")

from penstock_tuning.lm.export import export  # noqa: E402  # after the check for torch
from penstock_tuning.lm.train import Training, build_model, load_model  # noqa: E402  # the same


def test_the_parameters_are_those_counted() -> None:
    shape = config().shape
    assert sum(one.numel() for one in build_model(shape).parameters()) == shape.parameters


def test_a_run_in_pieces_ends_where_an_uncut_one_does(tmp_path: Path) -> None:
    recipe = config()
    data = prepared(recipe, tmp_path / "data")
    with pytest.raises(CheckpointMissingError):
        load_model(tmp_path / "data", recipe)
    assert_pieces_end_where_a_whole_run_does(partial(Training, recipe, data), tmp_path, recipe.steps)


def test_only_what_is_marked_is_learned(tmp_path: Path) -> None:
    recipe = config()
    training = Training(recipe, prepared(recipe, tmp_path), tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        logits = training._model(input_ids=ids).logits[0].log_softmax(-1)
        found = training._loss(ids, torch.tensor([[-100, 7, -100, 9]]))
    torch.testing.assert_close(found, -(logits[1, 7] + logits[3, 9]) / 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder exported from a short run."""
    folder = tmp_path_factory.mktemp("lm")
    recipe = config()
    data = prepared(recipe, folder)
    training = Training(recipe, data, folder)
    before = training._validate()
    assert training.run()
    after = training._validate()
    assert after["text_loss"] < before["text_loss"] - 1
    assert after["answers_loss"] < before["answers_loss"] - 1
    record = export(recipe, data, MEASURED, folder, folder / "model")
    return folder / "model", record


def test_the_folder_is_a_model_and_says_where_it_is_from(finished: tuple[Path, dict[str, Any]]) -> None:
    model, record = finished
    assert {path.name for path in model.iterdir()} == {
        "README.md", "NOTICE.md", "SHA256SUMS", "chat_template.jinja", "genai_config.json", "model.onnx",
        "model.onnx.data", "run.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert scan(model).format == "onnx-genai"
    assert json.loads((model / "run.json").read_text()) == json.loads(json.dumps(record))
    assert record["metrics"]["perplexity"] > 1
    assert abs(record["metrics"]["bits_per_byte"] - record["metrics"]["fp32_bits_per_byte"]) < 0.5
    assert record["tokens"] == 5120
    card, notice = (model / "README.md").read_text(), (model / "NOTICE.md").read_text()
    for said in ("60% text", "Llama: 2 layers, width 32", "| novels (en) |", "| all | 12 |", "8 bits"):
        assert said in card
    assert "| dbamman/litbank |" in notice
    assert "| openai/grade-school-math | MIT | gsm8k |" in notice
    assert "run.json" in (model / SUMS).read_text()


def test_the_inference_service_loads_the_folder(finished: tuple[Path, dict[str, Any]]) -> None:
    model, _ = finished
    layout = ModelLayout.read(model)
    assert (layout.layers, layout.kv_heads, layout.head_size, layout.context_length) == (2, 1, 16, 640)
    tokenizer = load_tokenizer(model)
    assert prompt_ids(tokenizer, model, [("user", "hello")])[0] == 1
    backend = LocalBackend.load(model, Limits(rows=2))
    assert backend.versions["model"] == layout.digest()


@pytest.mark.parametrize(
    ("change", "said"), [("export.max_megabytes=0.01", "MB are allowed"), ("export.max_cost=0.0000000001", "int4")]
)
def test_an_export_that_fails_a_check_is_not_put_in_place(tmp_path: Path, change: str, said: str) -> None:
    bits = "export.bits=4" if "cost" in change else "export.bits=8"
    recipe = config("phases=[{tokens: 1024, learned: all, shares: {text: 1}}]", bits, change)
    data = prepared(recipe, tmp_path)
    Training(recipe, data, tmp_path).run()
    with pytest.raises(ExportRejectedError, match=said):
        export(recipe, data, MEASURED, tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / ".model.new").exists()
