"""Whether Docker answers, and what is asked of compose; with a stand-in program on PATH."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from penstock.local import ComposeInfrastructure, LocalStackError, MissingToolError, StartError, docker_answers
from penstock.local.docker import compose_command


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    (folder / "sleep").symlink_to("/bin/sleep")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_no_client_means_no_engine(programs: Path) -> None:
    assert docker_answers() is False


@pytest.mark.parametrize(("status", "expected"), [(0, True), (1, False)])
def test_the_engine_answers_when_the_client_says_so(programs: Path, status: int, expected: bool) -> None:
    program(programs, "docker", f'[ "$1" = info ] && exit {status}; exit 9')
    assert docker_answers() is expected


def test_an_engine_that_hangs_does_not_answer(programs: Path) -> None:
    program(programs, "docker", "exec sleep 30")
    began = time.monotonic()
    assert docker_answers(limit_s=0.3) is False
    assert time.monotonic() - began < 5


def test_the_compose_plugin_is_preferred_to_the_older_program(programs: Path) -> None:
    program(programs, "docker-compose", "exit 0")
    program(programs, "docker", "exit 1")
    assert compose_command() == [str(programs / "docker-compose")]
    program(programs, "docker", "exit 0")
    assert compose_command() == [str(programs / "docker"), "compose"]


def test_an_engine_without_compose_is_refused_with_what_to_install(programs: Path) -> None:
    program(programs, "docker", "exit 1")
    with pytest.raises(MissingToolError, match="apt-get install docker-compose"):
        compose_command()


def test_the_end_of_composes_output_is_in_the_error(programs: Path, tmp_path: Path) -> None:
    program(programs, "docker", 'case "$*" in *version*) exit 0;; esac; echo "manifest unknown" >&2; exit 1')
    with pytest.raises(StartError, match="manifest unknown"):
        ComposeInfrastructure(tmp_path).start()


def test_stop_names_only_the_infrastructure(programs: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    program(programs, "docker", f'echo "$@" >> {calls}')
    ComposeInfrastructure(tmp_path).stop()
    last = calls.read_text(encoding="utf-8").splitlines()[-1]
    assert last.endswith("rm --stop --force -v kafka jaeger")


def test_deleting_the_records_removes_their_volume_and_no_other(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    program(programs, "docker", f'echo "$@" >> {calls}; [ "$2" = ls ] && echo "$PENSTOCK_KAFKA_VOLUME"; exit 0')
    monkeypatch.setenv("PENSTOCK_KAFKA_VOLUME", "mine")
    assert ComposeInfrastructure(tmp_path).delete_data() is True
    assert calls.read_text(encoding="utf-8").splitlines()[-1] == "volume rm mine"
    monkeypatch.setenv("PENSTOCK_KAFKA_VOLUME", "")
    calls.unlink()
    assert ComposeInfrastructure(tmp_path).delete_data() is False
    assert "volume rm" not in calls.read_text(encoding="utf-8")


def test_ports_come_from_the_variables_of_the_compose_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KAFKA_PORT", "29092")
    monkeypatch.setenv("PENSTOCK_JAEGER_PORT", "26686")
    stack = ComposeInfrastructure(tmp_path)
    assert stack.bootstrap_servers == "127.0.0.1:29092"
    assert stack.trace_url("ab12") == "http://127.0.0.1:26686/trace/ab12"
    monkeypatch.setenv("PENSTOCK_KAFKA_PORT", "70000")
    with pytest.raises(LocalStackError, match="PENSTOCK_KAFKA_PORT"):
        _ = stack.bootstrap_servers
