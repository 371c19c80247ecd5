"""Protobuf messages field by field, read and written without their schemas.

What the numbers mean is the caller's: `onnx` reads a graph's weights with it, the inference service changes a graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    number: int
    value: int | memoryview
    """A number where it is a varint, else its bytes."""
    raw: memoryview
    """All of it, as it stood in the message."""

    @property
    def content(self) -> memoryview:
        """The value of a field of bytes, text or a message; raises TypeError for a number."""
        if isinstance(self.value, int):
            raise TypeError("a number where a message was expected")
        return self.value


def fields(view: memoryview) -> Iterator[Field]:
    """The fields of a message, in order; raises ValueError or IndexError where it is none."""
    at = 0
    while at < len(view):
        begin = at
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield Field(number, value, view[begin:at])
            continue
        if wire == _BYTES:
            length, at = _varint(view, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("no protobuf message")
        if at + length > len(view):
            raise ValueError("cut short")
        yield Field(number, view[at : at + length], view[begin : at + length])
        at += length


def varints(view: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def field(number: int, value: int | bytes | str) -> bytes:
    """A field as it stands in a message: a number, not below 0, as a varint, text as UTF-8, bytes as they are."""
    if isinstance(value, int):
        return _written(number << 3 | _VARINT) + _written(value)
    content = value.encode() if isinstance(value, str) else value
    return _written(number << 3 | _BYTES) + _written(len(content)) + content


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
