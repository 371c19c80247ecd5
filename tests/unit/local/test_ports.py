"""Loopback ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from penstock.local import PortInUseError, free_port
from penstock.local.ports import accepts, port_is_free, require_free


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_listened_port_is_not_free_and_accepts(listener: int) -> None:
    assert not port_is_free(listener)
    assert accepts("127.0.0.1", listener)


def test_a_free_port_is_free_and_refuses() -> None:
    port = free_port()
    assert port_is_free(port)
    assert not accepts("127.0.0.1", port)


def test_an_excluded_port_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    monkeypatch.setattr("penstock.local.ports._FIRST", first)
    monkeypatch.setattr("penstock.local.ports._LAST", first)
    assert free_port() == first
    with pytest.raises(PortInUseError):
        free_port(excluding=frozenset({first}))


def test_a_taken_port_is_named_with_what_wants_it(listener: int) -> None:
    with pytest.raises(PortInUseError, match=rf"port {listener} .* the Kafka broker"):
        require_free(listener, "the Kafka broker")
