"""Processes that outlive the command that started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.local import ProcessIdentity, StartError, start_detached
from penstock.local.process import kill, log_tail, send, stop

STUBBORN = (
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


def python(code: str, folder: Path) -> ProcessIdentity:
    return start_detached([sys.executable, "-c", code], log_file=folder / "log", cwd=folder)


def wait_for_line(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in path.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, f"{text!r} never came"
        time.sleep(0.02)


def test_it_runs_in_a_session_of_its_own_and_stops_on_sigterm(tmp_path: Path) -> None:
    identity = python("import time; time.sleep(60)", tmp_path)
    assert identity.alive()
    assert os.getsid(identity.pid) == identity.pid
    assert stop(identity, grace_s=5) is True
    assert not identity.alive()


def test_one_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    identity = python(STUBBORN, tmp_path)
    wait_for_line(tmp_path / "log", "ready")
    began = time.monotonic()
    assert stop(identity, grace_s=0.5) is False
    assert time.monotonic() - began >= 0.5
    assert not identity.alive()


def test_an_identity_read_back_ends_a_process_that_another_command_started(tmp_path: Path) -> None:
    starter = (
        "import sys; from pathlib import Path; from penstock.local import start_detached;"
        "here = Path(sys.argv[1]);"
        "start_detached([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " log_file=here / 'log', cwd=here).save(here / 'pid.json')"
    )
    subprocess.run([sys.executable, "-c", starter, str(tmp_path)], check=True)
    identity = ProcessIdentity.load(tmp_path / "pid.json")
    assert identity is not None and identity.alive()
    assert stop(identity, grace_s=5) is True
    assert not identity.alive()


def test_a_process_id_given_to_somebody_else_is_never_signalled(tmp_path: Path) -> None:
    bystander = python("import time; time.sleep(60)", tmp_path)
    stale = ProcessIdentity(bystander.pid, started="0")
    assert not stale.alive()
    assert send(stale, signal.SIGKILL) is False
    stop(stale)
    assert bystander.alive()
    kill(bystander)


def test_a_zombie_counts_as_ended(tmp_path: Path) -> None:
    identity = python("import time; time.sleep(60)", tmp_path)
    os.kill(identity.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while identity.alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no-such-program"):
        start_detached([str(tmp_path / "no-such-program")], log_file=tmp_path / "log", cwd=tmp_path)


def test_no_identity_where_no_file_is(tmp_path: Path) -> None:
    assert ProcessIdentity.load(tmp_path / "none.json") is None


def test_a_saved_identity_is_plain_json(tmp_path: Path) -> None:
    ProcessIdentity(12, "34").save(tmp_path / "pid.json")
    assert json.loads((tmp_path / "pid.json").read_text(encoding="utf-8")) == {"pid": 12, "started": "34"}


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(5000)), encoding="utf-8")
    assert log_tail(log, lines=2) == "line 4998\nline 4999"
    assert "no log" in log_tail(tmp_path / "other")


def test_where_there_is_no_proc_the_start_is_told_by_ps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = python("import time; time.sleep(60)", tmp_path)
    listing = tmp_path / "listing"
    listing.write_text("S    Sat Nov 21 10:00:00 2026\n", encoding="utf-8")
    program = tmp_path / "ps"
    program.write_text(f'#!/bin/sh\nwhile read -r line; do echo "$line"; done < {listing}\n', encoding="utf-8")
    program.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr("penstock.local.process._PROC", tmp_path / "no-proc")
        patched.setenv("PATH", str(tmp_path))
        seen = ProcessIdentity(identity.pid, started="Sat Nov 21 10:00:00 2026")
        assert seen.alive()
        listing.write_text("Z    Sat Nov 21 10:00:00 2026\n", encoding="utf-8")
        assert not seen.alive()
        listing.write_text("", encoding="utf-8")
        assert not seen.alive()
    kill(identity)
