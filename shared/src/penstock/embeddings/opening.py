"""Opening a folder in the Hugging Face layout: `config.json`, `tokenizer.json`, `model.onnx`.

Each raises ConfigurationError with a sentence that begins with `what`, such as `the encoder in FOLDER`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

# the runtime reports usage to its maker unless told otherwise before the first import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from tokenizers import Tokenizer

from penstock.contracts.errors import ConfigurationError
from penstock.models.digests import ENCODER_FILES, encoder_digest, sha256_of

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
GRAPH: Final = "model.onnx"
_LAYOUT = f"it needs {CONFIG}, {TOKENIZER} and {GRAPH} in the Hugging Face layout"


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """The object in `config.json`."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{what} cannot be read: {CONFIG} ({type(error).__name__}); {_LAYOUT}") from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"{what} cannot be read: {CONFIG} holds no JSON object; export it again")
    return config


def positions(config: dict[str, Any], what: str) -> int:
    """The most tokens of a row."""
    found = config.get("max_position_embeddings")
    if not isinstance(found, int) or found < 3:
        raise ConfigurationError(f"{what} cannot be used: max_position_embeddings of {CONFIG} is no number of tokens")
    return found


def open_tokenizer(folder: Path, what: str) -> Tokenizer:
    """The tokenizer without padding or truncation; what stands in a text is text, whatever it spells."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises bare Exception for a bad file
        raise ConfigurationError(f"{what} cannot be read: {TOKENIZER} ({type(error).__name__}); {_LAYOUT}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def open_session(graph: Path, threads: int, what: str) -> Any:
    """The graph under ONNX Runtime, on processors alone; `threads` are those of a pass, which sleep between passes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors share no base below Exception
        raise ConfigurationError(f"{what} cannot be opened: {graph.name} ({type(error).__name__})") from error


def part_alone() -> Any:
    """Options of a pass that leave out what the outputs asked for do not need."""
    options = ort.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def digest_of(folder: Path) -> str:
    """The short digest of the files that make the answers."""
    names = [path.name for path in folder.iterdir() if path.name in ENCODER_FILES or ".onnx" in path.name]
    return encoder_digest({name: sha256_of(folder / name) for name in names})
