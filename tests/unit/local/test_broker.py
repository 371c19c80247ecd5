"""Which broker the tests get."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.local import LocalStackError, MissingToolError, StartError, broker_for_tests, free_port, project_root
from penstock.local.broker import container_environment


def test_a_named_broker_that_does_not_answer_is_an_error_not_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", address)
    with pytest.raises(StartError, match=address), broker_for_tests():
        raise AssertionError("there is no broker")


def test_a_named_broker_without_a_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost")
    with pytest.raises(LocalStackError, match="host:port"), broker_for_tests():
        raise AssertionError("there is no broker")


def test_without_anything_the_error_names_all_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError) as caught, broker_for_tests():
        raise AssertionError("there is no broker")
    for part in ("KAFKA_BOOTSTRAP_SERVERS", "Docker", "apt-get install openjdk-17-jre-headless maven"):
        assert part in str(caught.value)


def test_a_container_gets_the_settings_of_the_template() -> None:
    environment = container_environment(project_root(), 21000)
    assert environment["KAFKA_MESSAGE_MAX_BYTES"] == "33554432"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:21000"
    assert environment["KAFKA_LISTENERS"].startswith("PLAINTEXT://0.0.0.0:21000,CONTROLLER://127.0.0.1:")
    assert not [name for name in environment if "." in name or "#" in name]
