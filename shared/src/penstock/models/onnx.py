"""The type of an ONNX graph's weights, read from the protobuf bytes without the onnx library.

Only the fields that say so are followed: the operator and `bits` of quantized nodes, type and shape of initializers.
Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from pathlib import Path

from penstock.models.errors import ModelRefused
from penstock.models.protobuf import fields, varints

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_OP_TYPE, _ATTRIBUTE, _ATTRIBUTE_NAME, _ATTRIBUTE_INT = 4, 5, 1, 3
_DIMS, _DATA_TYPE = 1, 2
_TYPES = {1: "fp32", 2: "uint8", 3: "int8", 10: "fp16", 11: "fp64", 16: "bf16", 21: "uint4", 22: "int4"}
_QUANTIZED = frozenset({b"MatMulNBits", b"GatherBlockQuantized"})
_DEFAULT_BITS = 4


def weight_type(graph: Path) -> str:
    """`int4`, `int4+int8`, `fp16`...: of quantized weights, else of most of the bytes; raises ModelRefused."""
    with graph.open("rb") as file:
        try:
            # not closed by hand: the views of a failure's frames may still lead into it
            found = _weight_type(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        except (ValueError, IndexError, TypeError):
            found = None
    if found is None:
        raise ModelRefused(f"{graph}: no ONNX graph with weights; export the model again")
    return found


def _weight_type(view: memoryview) -> str | None:
    bits: set[int] = set()
    plain: Counter[int] = Counter()
    for graph in fields(view):
        if graph.number != _GRAPH:
            continue
        for part in fields(graph.content):
            if part.number == _NODE:
                bits |= _bits(part.content)
            elif part.number == _INITIALIZER:
                kind, elements = _tensor(part.content)
                plain[kind] += elements if kind else 0
    if bits:
        return "+".join(f"int{each}" for each in sorted(bits))
    kind, elements = plain.most_common(1)[0] if plain else (0, 0)
    return _TYPES.get(kind, f"onnx-type-{kind}") if elements else None


def _bits(node: memoryview) -> set[int]:
    operator, bits = b"", _DEFAULT_BITS
    for part in fields(node):
        if part.number == _OP_TYPE:
            operator = bytes(part.content)
        elif part.number == _ATTRIBUTE:
            attribute = {each.number: each.value for each in fields(part.content)}
            name, given = attribute.get(_ATTRIBUTE_NAME), attribute.get(_ATTRIBUTE_INT)
            if isinstance(name, memoryview) and bytes(name) == b"bits" and isinstance(given, int):
                bits = given
    return {bits} if operator in _QUANTIZED else set()


def _tensor(tensor: memoryview) -> tuple[int, int]:
    """Data type and number of elements."""
    kind, dims = 0, []
    for part in fields(tensor):
        if part.number == _DATA_TYPE and isinstance(part.value, int):
            kind = part.value
        elif part.number == _DIMS:
            dims += [part.value] if isinstance(part.value, int) else list(varints(part.value))
    return kind, math.prod(dims)
