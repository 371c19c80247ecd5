"""Encoders in the registry: what they are known by, and what is not done with them."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.support.encoder import TINY_ENCODER
from tests.support.models import SHIPPED

from penstock.embeddings.encoder import Encoder
from penstock.models.adding import How, add_folder
from penstock.models.entries import Entry, problems
from penstock.models.errors import ModelRefused
from penstock.models.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", SHIPPED)


def add(registry: Registry, folder: Path) -> Entry:
    result = add_folder(registry, folder, How(name="small"), lambda what, size: nullcontext(lambda done: None))
    assert result.unconverted == ()
    return result.added.entry


def test_an_encoder_is_added_as_it_is_and_known_by_its_digest(registry: Registry) -> None:
    entry = add(registry, TINY_ENCODER)
    manifest = entry.manifest
    assert (manifest.format, manifest.context_length, manifest.quantization) == ("onnx-encoder", 24, "fp32")
    assert manifest.answers is None
    assert manifest.vectors == Encoder(entry.folder).digest == Encoder(TINY_ENCODER).digest
    assert registry.find("small").reference == entry.reference
    assert problems(entry) == []


def test_an_encoder_is_not_promoted(registry: Registry) -> None:
    add(registry, TINY_ENCODER)
    with pytest.raises(ModelRefused, match="is an encoder"):
        registry.promote("small")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "config.json, model.onnx, tokenizer.json"),
        ("config.json", {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8}, "genai_config.json"),
        ("config.json", {"architectures": ["BertModel"]}, "max_position_embeddings"),
        ("tokenizer.json", None, "tokenizer.json"),
    ],
)
def test_what_is_no_encoder_is_refused(registry: Registry, tmp_path: Path, name: str, content: Any, says: str) -> None:
    folder = tmp_path / "given"
    shutil.copytree(TINY_ENCODER, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(ModelRefused, match=says):
        add(registry, folder)
