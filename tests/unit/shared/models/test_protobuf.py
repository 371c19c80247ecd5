"""Protobuf fields, read and written."""

from __future__ import annotations

import pytest

from penstock.models.protobuf import field, fields, varints


def test_what_is_written_is_read() -> None:
    message = field(1, 0) + field(2, 300) + field(15, "näher") + field(16, b"\x08\x01") + field(3, 2**63)
    found = list(fields(memoryview(message)))
    assert [part.number for part in found] == [1, 2, 15, 16, 3]
    assert [found[0].value, found[1].value, found[4].value] == [0, 300, 2**63]
    assert [str(found[2].content, "utf-8"), bytes(found[3].content)] == ["näher", b"\x08\x01"]
    assert b"".join(part.raw for part in found) == message
    assert [each.value for each in fields(found[3].content)] == [1]


def test_fixed_widths_keep_their_bytes() -> None:
    message = b"\x0d" + b"abcd" + b"\x11" + b"12345678"
    assert [(part.number, bytes(part.content)) for part in fields(memoryview(message))] == [
        (1, b"abcd"),
        (2, b"12345678"),
    ]
    assert b"".join(part.raw for part in fields(memoryview(message))) == message


def test_packed_numbers() -> None:
    assert list(varints(memoryview(b"\x01\xac\x02\x00"))) == [1, 300, 0]


@pytest.mark.parametrize("message", [b"\x0a\x05abc", b"\x0b", b"\x08", b"\x08" + b"\xff" * 11, b"\x0d\x01"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        list(fields(memoryview(message)))


def test_a_number_is_no_message() -> None:
    (part,) = fields(memoryview(field(1, 7)))
    with pytest.raises(TypeError):
        _ = part.content
