"""The way from a recipe to a finished folder that all commands share, with a run that trains nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from penstock_tuning.lm.errors import ExportRejectedError
from penstock_tuning.training import command
from penstock_tuning.training.command import Progress, Run, train_to_folder


class Pretended:
    """Stands where a run of torch would."""

    step, steps = 3, 10

    def __init__(self, finished: bool) -> None:
        self.finished = finished
        self.deadline: float | None = -1.0

    def run(self, deadline: float | None) -> bool:
        self.deadline = deadline
        return self.finished


def run_of(training: Pretended, record: dict[str, Any] | None = None) -> Any:
    def begin(progress: Progress) -> Run:
        progress("preparing")

        def export() -> dict[str, Any]:
            if record is None:
                raise ExportRejectedError("too large")
            return record

        return Run("small", training, export)  # type: ignore[arg-type]  # stands for the pieces

    return begin


def test_a_piece_says_where_it_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    training = Pretended(False)
    train_to_folder(run_of(training), Path("model"), needs=("json",), minutes=2, register=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"finished": False, "step": 3, "steps": 10}
    assert said.err == "preparing\n"
    assert training.deadline is not None


def test_a_finished_run_is_exported_and_registered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = []
    monkeypatch.setattr(command, "register_folder", lambda model, name: registered.append((model, name)) or f"{name}@1")
    training = Pretended(True)
    record = {"seconds": {"training": 1.0}, "metrics": {"loss": 2.0}}
    train_to_folder(run_of(training, record), Path("model"), needs=(), minutes=None, register=False)
    assert registered == []
    assert training.deadline is None
    train_to_folder(run_of(training, record), Path("model"), needs=(), minutes=None, register=True)
    assert registered == [(Path("model"), "small")]
    said = capsys.readouterr()
    last = json.loads(said.out.splitlines()[-1])
    assert last == {"finished": True, "model": "model", "seconds": {"training": 1.0}, "loss": 2.0}
    assert "added small@1" in said.err


def test_what_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        train_to_folder(run_of(Pretended(True)), Path("model"), needs=(), minutes=None, register=False)
    assert left.value.exit_code == 1
    assert capsys.readouterr().err == "preparing\nerror: too large\n"
    with pytest.raises(typer.Exit):
        train_to_folder(run_of(Pretended(True)), Path("model"), needs=("no_such_module",), minutes=1, register=False)
    assert "no_such_module not installed" in capsys.readouterr().err
