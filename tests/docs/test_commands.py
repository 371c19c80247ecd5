"""Commands in the documentation: targets, subcommands and options exist, and those marked `sh check` run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from penstock.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OTHERS = {"export", "cat", "echo", "curl", "docker", "docker-compose", "git", "uv", "java", "mvn"}
"""Programs that are not ours: only named."""

_BLOCK = re.compile(r"^```sh( check)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:make|penstock|python) [^`\n]+)`")


def commands() -> Iterator[tuple[str, str]]:
    """Page and command of every line in a shell block and every command in running text."""
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text()
        for block in _BLOCK.finditer(text):
            for line in block[2].splitlines():
                if line.strip() and not line.startswith("#"):
                    yield name, line
        for inline in _INLINE.finditer(text):
            yield name, inline[1]


def runnable() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in _BLOCK.finditer(page.read_text()):
            if block[1]:
                yield str(page.relative_to(ROOT)), block[2]


def problem(command: str) -> str | None:
    """What is wrong with a command; None where every part of it exists."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if not words:
        return None
    program = words[0].removeprefix(".venv/bin/")
    match program:
        case "make":
            missing = [word for word in words[1:] if "=" not in word and word not in TARGETS]
            return f"no such target: {missing}" if missing else None
        case "penstock":
            return problem_with_penstock(words[1:])
        case "python":
            return problem_with_python(words[1:])
        case _ if "/" in program:
            return None if (ROOT / program).exists() else f"no such file: {program}"
        case _:
            return None if program in OTHERS else f"unknown program: {program}"


def problem_with_penstock(words: list[str]) -> str | None:
    command: Any = get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] == "COMMAND":
            return None
        found = command.commands.get(words[0])
        if found is None:
            return f"no such command: penstock {words[0]}"
        command, words = found, words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    missing = [word for word in words if word.startswith("-") and word != "-" and word.split("=")[0] not in known]
    return f"no such option: {missing}" if missing else None


def problem_with_python(words: list[str]) -> str | None:
    if words and words[0] == "-m":
        module = words[1]
        spec = importlib.util.find_spec(module) if not module.startswith("tests.") else None
        place = ROOT / module.replace(".", "/")
        exists = spec is not None or place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
        return None if exists else f"no such module: {module}"
    return None if (ROOT / words[0]).is_file() else f"no such file: {words[0]}"


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_a_command_exists(page: str, command: str) -> None:
    assert problem(command) is None


@pytest.mark.parametrize(("page", "script"), sorted(set(runnable())))
def test_a_block_marked_check_runs(page: str, script: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(".venv/bin/", "")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_something_is_checked() -> None:
    assert len(set(commands())) > 20
    assert len(set(runnable())) >= 2


@pytest.mark.parametrize(
    "command",
    [
        "make runn",
        "penstock sendd x",
        "penstock send x --wait-for",
        "penstock topics aply",
        "python -m penstock.contracts.exporter write x",
        "python docs/settings.py write",
        "deploy/envv.sh",
        "frobnicate",
    ],
)
def test_a_wrong_command_is_noticed(command: str) -> None:
    assert problem(command) is not None
