"""Reading a model folder and refusing a broken one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock_inference.layout import ModelLayout

TINY = Path(__file__).parents[2] / "fixtures" / "tiny-lm"


def _copy(tmp_path: Path, change: dict[str, Any] | None = None) -> Path:
    """A copy of the fixture with values of genai_config.json replaced; keys are dotted paths, None removes."""
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    config = json.loads((folder / "genai_config.json").read_text())
    for path, value in (change or {}).items():
        *parents, last = path.split(".")
        node = config
        for name in parents:
            node = node[name]
        if value is None:
            del node[last]
        else:
            node[last] = value
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def test_reads_what_the_builder_wrote() -> None:
    layout = ModelLayout.read(TINY)
    assert (layout.layers, layout.kv_heads, layout.head_size, layout.context_length) == (2, 2, 16, 256)
    assert layout.eos_ids == frozenset({2})
    assert layout.past_key % 1 == "past_key_values.1.key"
    assert layout.position_ids == "position_ids"


def test_several_end_tokens(tmp_path: Path) -> None:
    assert ModelLayout.read(_copy(tmp_path, {"model.eos_token_id": [2, 0]})).eos_ids == frozenset({0, 2})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": None}, "lacks the object model"),
        ({"model.decoder.head_size": None}, "head_size"),
        ({"model.decoder.num_hidden_layers": 0}, "num_hidden_layers"),
        ({"model.decoder.num_hidden_layers": True}, "num_hidden_layers"),
        ({"model.decoder.filename": None}, "filename"),
        ({"model.decoder.filename": "other.onnx"}, "other.onnx is missing"),
        ({"model.decoder.inputs.past_key_names": "past"}, "past_key_names"),
        ({"model.eos_token_id": "two"}, "eos_token_id"),
        ({"model.eos_token_id": []}, "eos_token_id"),
        ({"search.past_present_share_buffer": False}, "past_present_share_buffer"),
    ],
)
def test_refuses_a_broken_config(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_MODEL_DIR: .*") as refused:
        ModelLayout.read(_copy(tmp_path, change))
    assert says in refused.value.message


@pytest.mark.parametrize("content", ["{", "[]"])
def test_refuses_a_config_that_is_no_object(tmp_path: Path, content: str) -> None:
    folder = _copy(tmp_path)
    (folder / "genai_config.json").write_text(content)
    with pytest.raises(ConfigurationError, match="PENSTOCK_MODEL_DIR"):
        ModelLayout.read(folder)


@pytest.mark.parametrize("missing", ["genai_config.json", "tokenizer.json", "model.onnx"])
def test_refuses_a_folder_that_lacks_a_file(tmp_path: Path, missing: str) -> None:
    folder = _copy(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(ConfigurationError, match=missing):
        ModelLayout.read(folder)


def test_digest_follows_the_files_that_make_the_answers(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    first = ModelLayout.read(folder).digest()
    assert first.startswith("sha256:") and len(first) == 23
    (folder / "README.md").write_text("about this model")
    assert ModelLayout.read(folder).digest() == first
    for name in ("tokenizer.json", "model.onnx.data", "chat_template.jinja"):
        before = ModelLayout.read(folder).digest()
        with (folder / name).open("ab") as file:
            file.write(b" ")
        assert ModelLayout.read(folder).digest() != before, name
