"""Model folders that tests add to a registry: a small one that runs, and ones that look like Hugging Face's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-lm"
SHIPPED = Path(__file__).parents[2] / "deploy" / "models" / "penstock-lm"


def tiny(target: Path, **config: Any) -> Path:
    """A copy of the tiny model; `config` changes fields of `model` in its genai_config.json."""
    target.mkdir(parents=True)
    for name in (
        "model.onnx",
        "model.onnx.data",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        shutil.copy(TINY / name, target / name)
    if config:
        path = target / "genai_config.json"
        whole = json.loads(path.read_text())
        whole["model"].update(config)
        path.write_text(json.dumps(whole))
    return target


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file of name -> (type, shape, bytes)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def hugging_face(target: Path, card: str = "", **config: Any) -> Path:
    """A folder as `save_pretrained` leaves it, with weights that are no model's."""
    target.mkdir(parents=True)
    said = {"model_type": "llama", "max_position_embeddings": 128, **config}
    (target / "config.json").write_text(json.dumps(said))
    weights = {"a": ("BF16", [2, 2], bytes(8)), "b": ("F32", [1], bytes(4))}
    (target / "model.safetensors").write_bytes(safetensors(weights))
    shutil.copy(TINY / "tokenizer.json", target / "tokenizer.json")
    (target / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    if card:
        (target / "README.md").write_text(card)
    return target
