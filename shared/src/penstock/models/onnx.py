"""The type of an ONNX graph's weights, read from the protobuf bytes without the onnx library.

Only the fields that say so are followed: the operator and `bits` of quantized nodes, type and shape of initializers.
Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from penstock.models.errors import ModelRefused

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_OP_TYPE, _ATTRIBUTE, _ATTRIBUTE_NAME, _ATTRIBUTE_INT = 4, 5, 1, 3
_DIMS, _DATA_TYPE = 1, 2
_TYPES = {1: "fp32", 2: "uint8", 3: "int8", 10: "fp16", 11: "fp64", 16: "bf16", 21: "uint4", 22: "int4"}
_QUANTIZED = frozenset({b"MatMulNBits", b"GatherBlockQuantized"})
_DEFAULT_BITS = 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_Field = tuple[int, int | memoryview]


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
    for number, graph in _fields(view):
        if number != _GRAPH:
            continue
        for part, value in _fields(_bytes(graph)):
            if part == _NODE:
                bits |= _bits(_bytes(value))
            elif part == _INITIALIZER:
                kind, elements = _tensor(_bytes(value))
                plain[kind] += elements if kind else 0
    if bits:
        return "+".join(f"int{each}" for each in sorted(bits))
    kind, elements = plain.most_common(1)[0] if plain else (0, 0)
    return _TYPES.get(kind, f"onnx-type-{kind}") if elements else None


def _bits(node: memoryview) -> set[int]:
    operator, bits = b"", _DEFAULT_BITS
    for number, value in _fields(node):
        if number == _OP_TYPE:
            operator = bytes(_bytes(value))
        elif number == _ATTRIBUTE:
            attribute = dict(_fields(_bytes(value)))
            name, given = attribute.get(_ATTRIBUTE_NAME), attribute.get(_ATTRIBUTE_INT)
            if isinstance(name, memoryview) and bytes(name) == b"bits" and isinstance(given, int):
                bits = given
    return {bits} if operator in _QUANTIZED else set()


def _tensor(tensor: memoryview) -> tuple[int, int]:
    """Data type and number of elements."""
    kind, dims = 0, []
    for number, value in _fields(tensor):
        if number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
    return kind, math.prod(dims)


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a number where a message was expected")
    return value


def _fields(view: memoryview) -> Iterator[_Field]:
    """Field number and value of each field of a protobuf message."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(view, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("no protobuf message")
        if at + length > len(view):
            raise ValueError("cut short")
        yield number, view[at : at + length]
        at += length


def _varints(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
