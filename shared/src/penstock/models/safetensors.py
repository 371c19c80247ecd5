"""The header of a safetensors file: enough to know that it is one, and its tensors' types, shapes and places.

The format: eight bytes little-endian, the length of a JSON header, the header, the tensors' bytes; nothing in it
can run. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.models.errors import ModelRefused

_MOST_HEADER_BYTES = 100_000_000
"""As the library itself has it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its type, e.g. `BF16`, its shape, and where its bytes stand in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def tensor_types(path: Path) -> Counter[str]:
    """Data type -> bytes of tensors of it; raises ModelRefused where the file is no safetensors."""
    types: Counter[str] = Counter()
    for tensor in tensors(path).values():
        types[tensor.dtype] += tensor.stop - tensor.start
    return types


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; raises ModelRefused where it is no safetensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
            raise ModelRefused(f"{path}: no safetensors file: its header does not fit into its {size} bytes")
        try:
            header: Any = json.loads(file.read(length))
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict):
        raise ModelRefused(f"{path}: no safetensors file: its header is no JSON object")
    found = {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        try:
            begin, end = tensor["data_offsets"]
            inside = 0 <= begin <= end <= size - 8 - length
            shape = tuple(int(each) for each in tensor["shape"])
            found[name] = Tensor(str(tensor["dtype"]), shape, 8 + length + begin, 8 + length + end)
        except (TypeError, KeyError, ValueError):
            inside = False
        if not inside:
            raise ModelRefused(f"{path}: no safetensors file: a tensor lies outside it; fetch it again")
    return found
