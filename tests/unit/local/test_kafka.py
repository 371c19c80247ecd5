"""What of the local broker can be told without starting one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from penstock.local import LocalKafka, LocalStackError, PortInUseError
from penstock.local.kafka import metadata_answers


def test_before_its_start_it_has_no_address_and_no_process() -> None:
    broker = LocalKafka()
    assert not broker.running()
    for read in (lambda: broker.bootstrap_servers, lambda: broker.pid, lambda: broker.data_dir):
        with pytest.raises(LocalStackError):
            read()


def test_a_taken_port_is_refused_before_java_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUseError, match=str(port)):
            LocalKafka(port=port).start()


def test_nothing_is_attached_to_where_nothing_ran(tmp_path: Path) -> None:
    assert LocalKafka.attach(tmp_path) is None


def test_stopping_what_never_started_is_no_error(tmp_path: Path) -> None:
    LocalKafka().stop()
    LocalKafka(tmp_path).stop()


def test_something_that_listens_but_is_no_broker_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert metadata_answers(f"127.0.0.1:{server.getsockname()[1]}", timeout_s=0.5) is False
