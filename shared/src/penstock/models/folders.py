"""Which files of a model folder are taken into the registry, and which folders are refused.

Taken are data files that a loader needs, by name. Pickles are refused: opening one runs what its author wrote.
Code, subfolders and whatever else lies there are left out.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from penstock.models.digests import CONFIG_FILE, TOKENIZER_FILE
from penstock.models.errors import ModelRefused
from penstock.models.manifest import Format
from penstock.models.safetensors import tensor_types

HF_CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_ENCODER = frozenset({HF_CONFIG, TOKENIZER_FILE, "model.onnx"})
TEMPLATE_FILE = "chat_template.jinja"
CARDS = ("README.md", "MODEL_CARD.md")

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_TAKEN = (
    *("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data", "*.onnx_data_*"),
    *("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"),
)
_READ_BY_PEOPLE = ("readme*", "model_card*", "license*", "licence*", "notice*", "use_policy*", "*acceptable_use*")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that may become a revision."""

    path: Path
    format: Format
    files: tuple[str, ...]
    """Names of the files taken, sorted."""
    left_out: tuple[str, ...]
    """Names of the others."""


def is_pickle(name: str) -> bool:
    """Whether a file is refused by its name."""
    return PurePath(name).suffix.lower() in _PICKLES


def is_taken(name: str) -> bool:
    """Whether a file is one that a loader or a reader of the card needs."""
    return not is_pickle(name) and _matches(name, (*_TAKEN, *_READ_BY_PEOPLE))


def is_card(name: str) -> bool:
    """Whether a file is a card, a licence or a notice."""
    return not is_pickle(name) and _matches(name, _READ_BY_PEOPLE)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)


def refuse_pickles(names: Iterable[str], where: str) -> None:
    """Raise ModelRefused where a file among them can run code when it is opened."""
    pickles = sorted(filter(is_pickle, names))
    if pickles:
        more = f" and {len(pickles) - 1} more" if len(pickles) > 1 else ""
        raise ModelRefused(
            f"{where}: {pickles[0]}{more} may hold a pickle, which "
            "runs code when it is opened; only safetensors and ONNX are taken: convert the weights where you trust "
            "their author (`save_pretrained` writes safetensors), and leave such files out of the folder"
        )


def scan(path: Path) -> ModelFolder:
    """Look through a folder; raises ModelRefused naming what is wrong."""
    if not path.is_dir():
        raise ModelRefused(f"{path} is no folder; give a model folder, or hub:ORG/NAME")
    entries = sorted(entry.name for entry in path.iterdir())
    names = [name for name in entries if (path / name).is_file()]
    refuse_pickles(names, str(path))
    taken = tuple(filter(is_taken, names))
    found = ModelFolder(path, _format(path, taken), taken, tuple(name for name in entries if name not in taken))
    for name in taken:
        if name.endswith(".safetensors"):
            tensor_types(path / name)
    return found


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; raises ModelRefused."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelRefused(f"cannot read {path} ({error.strerror}); is the folder complete?") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ModelRefused(f"{path} holds no JSON object; fetch the folder again")
    return value


def chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> tuple[str, Path] | None:
    """A model's chat template and the file it stands in; None where it has none. Raises OSError, UnicodeDecodeError."""
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8"), path
    declared = tokenizer_config.get("chat_template")
    if isinstance(declared, list):  # several by name, as some models have for the use of tools
        named = (entry for entry in declared if isinstance(entry, dict))
        declared = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    return (declared, folder / TOKENIZER_CONFIG) if isinstance(declared, str) else None


def _format(path: Path, names: tuple[str, ...]) -> Format:
    if CONFIG_FILE in names:
        graph = graph_name(read_object(path / CONFIG_FILE))
        if PurePath(graph).name != graph:
            raise ModelRefused(f"{path / CONFIG_FILE}: model.decoder.filename is no file name of its own folder")
        for needed in (graph, TOKENIZER_FILE):
            if needed not in names:
                raise ModelRefused(f"{path}: {needed} is missing; export the model again")
        return "onnx-genai"
    if set(names) >= _ENCODER and not _generates(read_object(path / HF_CONFIG)):
        return "onnx-encoder"
    if any(name.endswith(".onnx") for name in names):
        raise ModelRefused(
            f"{path} has an ONNX graph and no {CONFIG_FILE}; export it with the onnxruntime-genai builder "
            f"(an encoder of texts needs {', '.join(sorted(_ENCODER))})"
        )
    weights = [name for name in names if name.endswith(".safetensors")]
    for needed, there in (
        (HF_CONFIG, HF_CONFIG in names),
        ("*.safetensors", weights),
        (TOKENIZER_FILE, TOKENIZER_FILE in names),
    ):
        if not there:
            raise ModelRefused(
                f"{path} is neither a Hugging Face folder with safetensors nor one of the onnxruntime-genai builder: "
                f"{needed} is missing"
            )
    _check_index(path, names)
    if "auto_map" in read_object(path / HF_CONFIG):
        raise ModelRefused(
            f"{path / HF_CONFIG} asks for code of its own (auto_map), which is never run; "
            "take a model of an architecture that transformers has"
        )
    return "safetensors"


def _generates(config: dict[str, Any]) -> bool:
    """Whether a configuration is a language model's, which no encoder is."""
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    return any(name.endswith(("ForCausalLM", "ForConditionalGeneration")) for name in names)


def graph_name(config: dict[str, Any]) -> str:
    """The file of the graph that a builder's configuration names."""
    model = config.get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    name = decoder.get("filename") if isinstance(decoder, dict) else None
    return name if isinstance(name, str) else "model.onnx"


def _check_index(path: Path, names: tuple[str, ...]) -> None:
    """Refuse a folder that lacks a part of its weights."""
    for name in names:
        if name.endswith(".safetensors.index.json"):
            parts = read_object(path / name).get("weight_map")
            missing = sorted(set(parts.values()) - set(names)) if isinstance(parts, dict) else [name]
            if missing:
                raise ModelRefused(f"{path}: {missing[0]} is missing, which {name} names; is the folder complete?")
