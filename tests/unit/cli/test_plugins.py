"""Command groups that other packages bring: listed without an import, imported when used."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli import main, plugins

MODULE = """
import typer

app = typer.Typer()


@app.command()
def hello(name: str) -> None:
    typer.echo(f"hello {name}")


@app.command()
def other() -> None:
    pass
"""


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> plugins.Plugin:
    (tmp_path / "brought_commands.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "brought_commands", raising=False)
    return plugins.Plugin(EntryPoint("brought", "brought_commands:app", plugins.GROUP))


def test_a_group_is_imported_when_it_is_used_and_not_before(
    group: plugins.Plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Commands of brought_commands." in (group.help or "")
    assert "brought_commands" not in sys.modules
    group.main(["hello", "you"], standalone_mode=False)
    assert capsys.readouterr().out == "hello you\n"
    assert "brought_commands" in sys.modules


def test_installed_packages_are_commands_of_penstock() -> None:
    group = plugins.plugins()["tune"]
    assert {"data", "lm", "abuse"} <= set(group.commands)
    done = CliRunner().invoke(main.app, ["tune", "data", "verify", "--help"])
    assert done.exit_code == 0
    assert "manifest" in done.stdout
