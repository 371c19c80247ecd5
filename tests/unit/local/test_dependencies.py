"""What the Dockerfile installs ahead of the sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.local import project_root

SHARED = """
[project]
name = "penstock"
dependencies = ["pydantic>=2.10", "rich>=13"]
[project.optional-dependencies]
text = ["regex>=2024"]
vault = ["cryptography>=44"]
"""
SERVICE = """
[project]
name = "penstock-one"
dependencies = ["penstock[text, vault]", "ftfy>=6.3", "rich>=13", "penstockade>=1"]
"""


def requirements(folder: Path, *arguments: str) -> list[str]:
    script = project_root() / "deploy" / "dependencies.py"
    listed = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30
    )
    return listed.stdout.splitlines()


def write(folder: Path, service: str) -> None:
    (folder / "shared").mkdir()
    (folder / "shared" / "pyproject.toml").write_text(SHARED, encoding="utf-8")
    (folder / "services" / "one").mkdir(parents=True)
    (folder / "services" / "one" / "pyproject.toml").write_text(service, encoding="utf-8")


def test_the_library_stands_for_its_own_needs_and_the_extras_asked_for(tmp_path: Path) -> None:
    write(tmp_path, SERVICE)
    assert requirements(tmp_path, "one") == [
        "cryptography>=44", "ftfy>=6.3", "penstockade>=1", "pydantic>=2.10", "regex>=2024", "rich>=13"
    ]  # fmt: skip


def test_an_extra_of_the_service_comes_along_where_it_is_asked_for() -> None:
    without, with_it = (requirements(project_root(), "inference", *extras) for extras in ((), ("genai",)))
    assert [line.partition(">")[0] for line in with_it if line not in without] == ["onnxruntime-genai"]
    with pytest.raises(subprocess.CalledProcessError):
        requirements(project_root(), "inference", "genay")


def test_an_extra_that_the_library_does_not_have_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, SERVICE.replace("text, vault", "txet"))
    with pytest.raises(subprocess.CalledProcessError):
        requirements(tmp_path, "one")


@pytest.mark.parametrize("service", ["preprocess", "anonymize", "safety", "inference", "postprocess"])
def test_a_service_takes_nothing_of_the_workspace_from_an_index(service: str) -> None:
    listed = requirements(project_root(), service)
    assert listed
    assert [line for line in listed if line.startswith("penstock")] == []
