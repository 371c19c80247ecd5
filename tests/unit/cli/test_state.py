"""The state folder: what is written is read back, one command at a time, and a pid alone is never trusted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.cli import services
from penstock.cli.errors import StackError
from penstock.cli.state import BackingState, ServiceState, StackState, StateFolder, ViewerState
from penstock.local.process import start_detached


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def sleeper(folder: StateFolder) -> Iterator[ServiceState]:
    """A process such as a service, ended at the end of the test."""
    log = folder.log_file("sleeper")
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    identity = start_detached(command, log_file=log, cwd=folder.path.parent)
    service = ServiceState(name="sleeper", pid=identity.pid, started=identity.started, port=1, log=log)
    yield service
    services.end([service], grace_s=1)


def state(*running: ServiceState) -> StackState:
    return StackState(
        prefix="t.",
        broker=BackingState(kind="process", address="127.0.0.1:29092", ours=True),
        viewer=ViewerState(kind="process", address="http://v", ours=True, viewer="zipkin", spans="http://v/spans"),
        services={service.name: service for service in running},
    )


def test_nothing_recorded_is_none(folder: StateFolder) -> None:
    assert folder.load() is None


def test_what_is_saved_is_loaded(folder: StateFolder, sleeper: ServiceState) -> None:
    folder.save(state(sleeper))
    assert folder.load() == state(sleeper)
    folder.clear()
    assert folder.load() is None


def test_a_file_of_another_release_is_refused_with_what_to_do(folder: StateFolder) -> None:
    folder.path.mkdir()
    folder.state_file.write_text('{"version": 9}', encoding="utf-8")
    with pytest.raises(StackError, match="not a state file of this release"):
        folder.load()


def test_the_folder_is_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "elsewhere"))
    assert StateFolder.configured().path == tmp_path / "elsewhere"
    monkeypatch.delenv("PENSTOCK_STATE_DIR")
    monkeypatch.chdir(tmp_path)
    assert StateFolder.configured().path == tmp_path / ".penstock"


def test_two_commands_do_not_hold_the_folder_at_once(folder: StateFolder) -> None:
    with folder.locked(), pytest.raises(StackError, match="another penstock command"), folder.locked():
        pass
    with folder.locked():
        pass


def test_ending_ends_the_recorded_process(sleeper: ServiceState) -> None:
    assert sleeper.identity.alive()
    assert services.end([sleeper]) == {"sleeper": "ended"}
    assert not sleeper.identity.alive()


def test_a_reused_pid_is_left_alone(sleeper: ServiceState) -> None:
    stranger = sleeper.model_copy(update={"started": str(int(sleeper.started) - 1)})
    assert not stranger.identity.alive()
    assert services.end([stranger]) == {"sleeper": "had ended already"}
    assert sleeper.identity.alive()


def test_a_process_deaf_to_sigterm_is_killed(folder: StateFolder) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    log = folder.log_file("deaf")
    identity = start_detached([sys.executable, "-c", deaf], log_file=log, cwd=folder.path.parent)
    service = ServiceState(name="deaf", pid=identity.pid, started=identity.started, port=1, log=log)
    while "deaf" not in log.read_text(encoding="utf-8"):
        assert identity.alive()
    assert services.end([service], grace_s=0.3)["deaf"].startswith("killed")
    assert not identity.alive()


def test_a_service_outlives_the_command_that_started_it(folder: StateFolder, sleeper: ServiceState) -> None:
    """Its session is its own: a Ctrl-C or the end of the terminal does not reach it."""
    listed = subprocess.run(
        ["ps", "-o", "sid=", "-p", str(sleeper.pid)], capture_output=True, text=True, check=True
    ).stdout
    assert int(listed) == sleeper.pid
