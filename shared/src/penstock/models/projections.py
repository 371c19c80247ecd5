"""The linear layers of a builder's graph that adapters may change, found without the onnx library.

The onnxruntime-genai builder names nodes after the modules of the model they were made from, and may join those of
query, key and value into one multiplication; GroupQueryAttention says how many heads each has then. Field numbers
are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.models.errors import ModelRefused
from penstock.models.protobuf import fields, varints

GRAPH: Final = 7
NODE, INITIALIZER, INPUT = 1, 5, 11
NODE_INPUT, NODE_OUTPUT, NODE_NAME, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TYPE = 1, 3, 20
_DIMS, _TENSOR_NAME = 1, 8
_MULTIPLIES = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/MatMul\w*")
_ATTENTION = "GroupQueryAttention"
_JOINED: Final = "qkv_proj"
_MODULES: Final = {"attn": "self_attn", "mlp": "mlp"}


@dataclass(frozen=True, slots=True)
class Projection:
    """One linear layer: `output = input @ weight (+ bias)`."""

    layer: int
    kind: str
    """`qkv_proj`, `o_proj`, `gate_proj`...: its name in the graph."""
    input: str
    output: str
    """The tensor behind its bias, where it has one."""
    inputs: int
    outputs: int
    parts: Mapping[str, tuple[int, int]]
    """The model's modules in it, by their full names, each with its first column and the one behind its last."""


@dataclass(slots=True)
class _Node:
    name: str = ""
    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)


def projections(graph: Path) -> tuple[Projection, ...]:
    """Those of a graph's file, in its order; raises ModelRefused where it is none or has none."""
    with graph.open("rb") as file:
        try:
            found = tuple(_projections(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))))
        except (ValueError, IndexError, TypeError):
            found = ()
    if not found:
        raise ModelRefused(
            f"{graph}: no linear layers as the onnxruntime-genai builder names them; adapters need a model that it made"
        )
    return found


def _projections(model: memoryview) -> Iterator[Projection]:
    nodes: list[_Node] = []
    shapes: dict[str, list[int]] = {}
    for graph in fields(model):
        if graph.number == GRAPH:
            for part in fields(graph.content):
                if part.number == NODE:
                    nodes.append(_node(part.content))
                elif part.number == INITIALIZER:
                    name, shape = _shape(part.content)
                    shapes[name] = shape
    uses = Counter(name for node in nodes for name in node.inputs)
    heads = {node.inputs[0]: node.numbers for node in nodes if node.operator == _ATTENTION and node.inputs}
    biases = {name: node for node in nodes if node.operator == "Add" for name in node.inputs if name not in shapes}
    for node in nodes:
        named = _MULTIPLIES.fullmatch(node.name)
        size = _size(node, shapes) if named else None
        if named is None or size is None:
            continue
        output = node.outputs[0]
        bias = biases.get(output)
        if bias is not None and uses[output] == 1 and any(len(shapes.get(name, ())) == 1 for name in bias.inputs):
            output = bias.outputs[0]
        layer, block, kind = named.groups()
        prefix = f"model.layers.{layer}.{_MODULES[block]}."
        parts = {prefix + kind: (0, size[1])}
        if kind == _JOINED:
            parts |= {prefix + part: columns for part, columns in _split(heads.get(output, {}), size[1])}
        yield Projection(int(layer), kind, node.inputs[0], output, *size, parts)


def _split(heads: Mapping[str, int], columns: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """The columns of query, key and value in one multiplication; nothing where the graph does not say."""
    query, keys = heads.get("num_heads", 0), heads.get("kv_num_heads", 0)
    if query < 1 or keys < 1 or columns % (query + 2 * keys):
        return
    size = columns // (query + 2 * keys)
    start = 0
    for name, count in (("q_proj", query), ("k_proj", keys), ("v_proj", keys)):
        yield name, (start, start + count * size)
        start += count * size


def _size(node: _Node, shapes: Mapping[str, list[int]]) -> tuple[int, int] | None:
    """Numbers of inputs and outputs; None where it multiplies with no weight of a known shape."""
    if node.operator == "MatMulNBits" and {"K", "N"} <= node.numbers.keys():
        return node.numbers["K"], node.numbers["N"]
    shape = shapes.get(node.inputs[1], []) if node.operator == "MatMul" and len(node.inputs) > 1 else []
    return (shape[0], shape[1]) if len(shape) == 2 else None  # a matrix


def _node(view: memoryview) -> _Node:
    node = _Node()
    for part in fields(view):
        if part.number == NODE_INPUT:
            node.inputs.append(_text(part.content))
        elif part.number == NODE_OUTPUT:
            node.outputs.append(_text(part.content))
        elif part.number == NODE_NAME:
            node.name = _text(part.content)
        elif part.number == OP_TYPE:
            node.operator = _text(part.content)
        elif part.number == ATTRIBUTE:
            said = {each.number: each.value for each in fields(part.content)}
            name, whole = said.get(ATTRIBUTE_NAME), said.get(ATTRIBUTE_INT)
            if isinstance(name, memoryview) and isinstance(whole, int):
                node.numbers[_text(name)] = whole
    return node


def _shape(view: memoryview) -> tuple[str, list[int]]:
    name, shape = "", []
    for part in fields(view):
        if part.number == _TENSOR_NAME:
            name = _text(part.content)
        elif part.number == _DIMS:
            shape += [part.value] if isinstance(part.value, int) else list(varints(part.value))
    return name, shape


def _text(view: memoryview) -> str:
    return str(view, "utf-8")
