"""What of the trace viewer can be told without starting one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from penstock.local import LocalStackError, LocalZipkin, MissingToolError, PortInUseError


def test_before_its_start_it_has_no_address_and_no_process() -> None:
    viewer = LocalZipkin()
    assert not viewer.running()
    for read in (lambda: viewer.url, lambda: viewer.pid, lambda: viewer.log_file):
        with pytest.raises(LocalStackError):
            read()


def test_a_taken_port_is_refused_before_java_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUseError, match=str(port)):
            LocalZipkin(port=port).start()


def test_without_java_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingToolError, match="apt-get install openjdk-17-jre-headless"):
        LocalZipkin().start()


def test_its_addresses_follow_from_the_port() -> None:
    viewer = LocalZipkin(port=9411)
    assert viewer.endpoint == "http://127.0.0.1:9411/api/v2/spans"
    assert viewer.trace_url("ab12") == "http://127.0.0.1:9411/zipkin/traces/ab12"


def test_nothing_is_attached_to_where_nothing_ran(tmp_path: Path) -> None:
    assert LocalZipkin.attach(tmp_path) is None
