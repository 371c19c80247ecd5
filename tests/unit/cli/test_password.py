"""A password in the environment is in no command's output and in no file that one leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.cli.state import BackingState, ServiceState, StackState, StateFolder

PASSWORD = "correct-horse"


@pytest.fixture
def secured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state folder of a stack that has ended, and a user for the broker."""
    for name in [name for name in os.environ if name.upper().startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("PENSTOCK_KAFKA_SASL_USERNAME", "penstock-operator")
    monkeypatch.setenv("PENSTOCK_KAFKA_SASL_PASSWORD", PASSWORD)
    service = ServiceState(name="safety", pid=2**22 + 1, started="0", port=1, log=tmp_path / "safety.log")
    broker = BackingState(kind="external", address="127.0.0.1:1", ours=False)
    StateFolder(tmp_path).save(StackState(prefix="", broker=broker, services={"safety": service}))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["status"], 1),
        (["status", "--json"], 1),
        (["acl", "plan"], 0),
        (["acl", "check", "--bootstrap", "nowhere"], 2),
    ],
)
def test_no_output_and_no_file_has_it(secured: Path, command: list[str], status: int) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == status, done.output
    assert done.output
    assert PASSWORD not in done.output
    for file in secured.rglob("*"):
        assert not file.is_file() or PASSWORD not in file.read_text()


def test_settings_that_cannot_work_are_a_usage_error(secured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
    done = CliRunner().invoke(app, ["topics", "list"])
    said = " ".join(done.output.replace("│", " ").split())
    assert done.exit_code == 2
    assert "PENSTOCK_KAFKA_SASL_PASSWORD has no effect with PENSTOCK_KAFKA_SECURITY_PROTOCOL=PLAINTEXT" in said
    assert PASSWORD not in done.output
