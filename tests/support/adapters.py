"""LoRA adapters in PEFT's layout, made of random numbers, and the tiny model with one merged into its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.support.models import TINY, safetensors

from penstock.models.projections import projections
from penstock.models.protobuf import fields, varints

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Pairs = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
_GRAPH, _INITIALIZER, _NAME, _DIMS, _EXTERNAL, _KEY, _VALUE = 7, 5, 8, 1, 13, 1, 2


def matrices(base: Path, rank: int, seed: int, targets: Iterable[str] = MODULES, size: float = 0.25) -> Pairs:
    """Module -> A [rank, inputs], B [outputs, rank], for a model folder."""
    random = np.random.default_rng(seed)
    wanted = set(targets)
    made = {}
    for layer in projections(base / "model.onnx"):
        for module, (start, stop) in layer.parts.items():
            if module.rpartition(".")[2] in wanted:
                a, b = random.normal(size=(rank, layer.inputs)), random.normal(size=(stop - start, rank))
                made[module] = (a.astype(np.float32) * size, b.astype(np.float32) * size)
    return made


def peft(target: Path, pairs: Pairs, rank: int, dtype: str = "F32", **config: Any) -> Path:
    """A folder as PEFT's `save_pretrained` leaves it; `config` changes fields of adapter_config.json."""
    target.mkdir(parents=True)
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "org/base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted({module.rpartition(".")[2] for module in pairs}),
        "bias": "none",
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    (target / "adapter_config.json").write_text(json.dumps({**said, **config}))
    tensors = {
        f"base_model.model.{module}.lora_{name}.weight": (dtype, list(matrix.shape), _bytes(matrix, dtype))
        for module, pair in pairs.items()
        for name, matrix in zip("AB", pair, strict=True)
    }
    (target / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    return target


def adapter(target: Path, base: Path = TINY, rank: int = 4, seed: int = 1, **given: Any) -> Path:
    """The two in one, for those who do not need the numbers."""
    targets, size = given.pop("targets", MODULES), given.pop("size", 0.25)
    return peft(target, matrices(base, rank, seed, targets, size), rank, **given)


def merged(target: Path, pairs: Pairs, scale: float, base: Path = TINY) -> Path:
    """A copy of a model of float32 weights that have the adapter in them."""
    shutil.copytree(base, target)
    data = bytearray((target / "model.onnx.data").read_bytes())
    weights = _weights(base / "model.onnx")
    for layer in projections(base / "model.onnx"):
        block = "attn" if "self_attn" in next(iter(layer.parts)) else "mlp"
        at, shape = weights[f"model.layers.{layer.layer}.{block}.{layer.kind}.MatMul.weight"]
        assert shape == (layer.inputs, layer.outputs)
        weight = np.frombuffer(data, np.float32, shape[0] * shape[1], at).reshape(shape)
        for module, (start, stop) in layer.parts.items():
            if module in pairs:
                a, b = pairs[module]
                weight[:, start:stop] += (a.T @ b.T) * np.float32(scale)
    (target / "model.onnx.data").write_bytes(data)
    return target


def _bytes(matrix: npt.NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "BF16":
        return (matrix.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return matrix.astype({"F32": np.float32, "F16": np.float16, "I8": np.int8}[dtype]).tobytes()


def _weights(graph: Path) -> Mapping[str, tuple[int, tuple[int, ...]]]:
    """Initializer -> where its bytes begin in the file beside the graph, and its shape."""
    found = {}
    tensors = (
        part.content
        for model in fields(memoryview(graph.read_bytes()))
        if model.number == _GRAPH
        for part in fields(model.content)
        if part.number == _INITIALIZER
    )
    for tensor in tensors:
        name, dims, entries = "", [], {}
        for part in fields(tensor):
            if part.number == _NAME:
                name = str(part.content, "utf-8")
            elif part.number == _DIMS:
                dims += [part.value] if isinstance(part.value, int) else list(varints(part.value))
            elif part.number == _EXTERNAL:
                pair = {each.number: str(each.content, "utf-8") for each in fields(part.content)}
                entries[pair[_KEY]] = pair[_VALUE]
        if entries:
            found[name] = (int(entries.get("offset", "0")), tuple(dims))
    return found
