"""A model folder in the layout of the onnxruntime-genai builder: what it declares and its digest.

Reads `genai_config.json` and checks that the files are there. The tensors' types are checked where
the session is opened (`runner`); the tokenizer is read by `penstock.text.prompt_tokens`. `Sizes` is what any
decoder declares, `ModelLayout` what those do that the runner can feed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from penstock.contracts.errors import ConfigurationError
from penstock.models.digests import CONFIG_FILE, TOKENIZER_FILE, folder_digest


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a decoder is, and which tokens end its answers."""

    layers: int
    kv_heads: int
    head_size: int
    context_length: int
    vocabulary_size: int
    eos_ids: frozenset[int]

    @classmethod
    def read(cls, folder: Path) -> Sizes:
        """Read a folder; raises ConfigurationError naming PENSTOCK_MODEL_DIR and what is wrong."""
        model = _object(_config(folder), "model", folder)
        decoder = _object(model, "decoder", folder)
        return cls(
            layers=_count(decoder, "num_hidden_layers", folder),
            kv_heads=_count(decoder, "num_key_value_heads", folder),
            head_size=_count(decoder, "head_size", folder),
            context_length=_count(model, "context_length", folder),
            vocabulary_size=_count(model, "vocab_size", folder),
            eos_ids=_token_ids(model, "eos_token_id", folder),
        )


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """What a folder declares about its decoder. Name patterns hold `%d` for the layer."""

    folder: Path
    graph: Path
    layers: int
    kv_heads: int
    head_size: int
    context_length: int
    eos_ids: frozenset[int]
    input_ids: str
    attention_mask: str
    position_ids: str
    """Its name; whether the graph has it, the session tells."""
    past_key: str
    past_value: str
    logits: str
    present_key: str
    present_value: str

    @classmethod
    def read(cls, folder: Path) -> ModelLayout:
        """Read and check a folder; raises ConfigurationError naming PENSTOCK_MODEL_DIR and what is wrong."""
        config = _config(folder)
        model = _object(config, "model", folder)
        decoder = _object(model, "decoder", folder)
        inputs = _object(decoder, "inputs", folder)
        outputs = _object(decoder, "outputs", folder)
        if config.get("search", {}).get("past_present_share_buffer") is not True:
            _refuse(
                folder,
                f"search.past_present_share_buffer in {CONFIG_FILE} is not true; export the model with "
                "GroupQueryAttention so that the cache is updated in place",
            )
        layout = cls(
            folder=folder,
            graph=folder / _text(decoder, "filename", folder),
            layers=_count(decoder, "num_hidden_layers", folder),
            kv_heads=_count(decoder, "num_key_value_heads", folder),
            head_size=_count(decoder, "head_size", folder),
            context_length=_count(model, "context_length", folder),
            eos_ids=_token_ids(model, "eos_token_id", folder),
            input_ids=_text(inputs, "input_ids", folder),
            attention_mask=_text(inputs, "attention_mask", folder),
            position_ids=_text({"position_ids": "position_ids"} | inputs, "position_ids", folder),
            past_key=_pattern(inputs, "past_key_names", folder),
            past_value=_pattern(inputs, "past_value_names", folder),
            logits=_text(outputs, "logits", folder),
            present_key=_pattern(outputs, "present_key_names", folder),
            present_value=_pattern(outputs, "present_value_names", folder),
        )
        for path in (layout.graph, folder / TOKENIZER_FILE):
            if not path.is_file():
                _refuse(folder, f"{path.name} is missing")
        return layout

    def digest(self) -> str:
        """`sha256:` and 16 hex digits over the names and contents of all files that make the answers."""
        return folder_digest(self.folder)


def _refuse(folder: Path, reason: str) -> NoReturn:
    raise ConfigurationError(
        f"PENSTOCK_MODEL_DIR: {folder} is no model folder in the layout of the onnxruntime-genai builder: {reason}"
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        _refuse(folder, f"cannot read {CONFIG_FILE} ({error.strerror})")
    except ValueError:
        _refuse(folder, f"{CONFIG_FILE} is not JSON")
    if not isinstance(config, dict):
        _refuse(folder, f"{CONFIG_FILE} is not an object")
    return config


def _object(parent: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        _refuse(folder, f"{CONFIG_FILE} lacks the object {name}")
    return value


def _text(parent: dict[str, Any], name: str, folder: Path) -> str:
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        _refuse(folder, f"{CONFIG_FILE} lacks the name {name}")
    return value


def _pattern(parent: dict[str, Any], name: str, folder: Path) -> str:
    value = _text(parent, name, folder)
    if value.count("%d") != 1:
        _refuse(folder, f"{name} in {CONFIG_FILE} does not hold %d once")
    return value


def _count(parent: dict[str, Any], name: str, folder: Path) -> int:
    value = parent.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        _refuse(folder, f"{name} in {CONFIG_FILE} is not a positive integer")
    return value


def _token_ids(parent: dict[str, Any], name: str, folder: Path) -> frozenset[int]:
    value = parent.get(name)
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in ids):
        _refuse(folder, f"{name} in {CONFIG_FILE} is neither a token id nor a list of them")
    return frozenset(ids)
