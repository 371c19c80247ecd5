"""SHA-256 of files, and the short digest of what makes a model's answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

CONFIG_FILE: Final = "genai_config.json"
TOKENIZER_FILE: Final = "tokenizer.json"
_BESIDE_THE_GRAPH: Final = frozenset({CONFIG_FILE, TOKENIZER_FILE, "tokenizer_config.json", "chat_template.jinja"})
ENCODER_FILES: Final = frozenset({"config.json", TOKENIZER_FILE})
"""Beside its graph, what makes an encoder's vectors."""
_SHORT = 16


def sha256_of(path: Path) -> str:
    """64 hex digits over a file's content; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short(digest: str) -> str:
    """`sha256:` and the first 16 digits: how `versions` of a result name what made it."""
    return f"sha256:{digest[:_SHORT]}"


def makes_answers(name: str) -> bool:
    """Whether a file of an ONNX model folder makes its answers, as a card or a licence does not."""
    return name in _BESIDE_THE_GRAPH or ".onnx" in name


def answers_digest(digests: Mapping[str, str], makes: Callable[[str], bool] = makes_answers) -> str:
    """The short digest over the names and contents of the files that make the answers; `digests` is name -> SHA-256."""
    whole = hashlib.sha256()
    for name in sorted(filter(makes, digests)):
        whole.update(f"{name}\0{digests[name]}\n".encode())
    return short(whole.hexdigest())


def encoder_digest(digests: Mapping[str, str]) -> str:
    """The same of what makes an encoder's vectors."""
    whole = hashlib.sha256()
    for name in sorted(name for name in digests if name in ENCODER_FILES or ".onnx" in name):
        whole.update(f"{name}\0{digests[name]}\n".encode())
    return short(whole.hexdigest())


def folder_digest(folder: Path) -> str:
    """`answers_digest` of a folder as it lies there; raises OSError."""
    files = [path for path in folder.iterdir() if path.is_file() and makes_answers(path.name)]
    return answers_digest({path.name: sha256_of(path) for path in files})
