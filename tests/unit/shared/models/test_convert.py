"""Converting, with a builder that stands in for onnxruntime-genai's: how it is called, what becomes of its output."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.models import SHIPPED, TINY, hugging_face

from penstock.models import convert
from penstock.models.adding import How, add_folder
from penstock.models.errors import ModelError
from penstock.models.registry import Registry
from penstock.models.storage import PARTIAL

BUILDER = f"""
import os, shutil, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert os.environ["HF_HUB_OFFLINE"] == os.environ["ORT_DISABLE_TELEMETRY"] == "1"
if given["-p"] == "fp32":
    sys.exit("no such precision: " + given["-p"])
os.makedirs(given["-o"]), os.makedirs(given["-c"])
for name in ("model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json", "chat_template.jinja"):
    shutil.copy(os.path.join({str(TINY)!r}, name), given["-o"])
"""


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra, as far as it is asked for."""
    modules = tmp_path / "modules"
    package = modules / "onnxruntime_genai" / "models"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("")
    (package / "builder.py").write_text(BUILDER)
    for name in ("torch", "onnx", "transformers"):
        (modules / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("PYTHONPATH", str(modules))
    importlib.invalidate_caches()


@contextmanager
def no_bar(_: str, total: int) -> Iterator[Any]:
    yield lambda _: None


def registry_in(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", SHIPPED)


@pytest.mark.usefixtures("builder")
def test_a_hugging_face_folder_becomes_one_that_serves(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    folder = hugging_face(tmp_path / "support", "---\nlicense: gemma\n---\n")
    (folder / "LICENSE").write_text("terms")
    result = add_folder(registry, folder, How(precision="int8"), no_bar)
    manifest = result.added.entry.manifest
    assert (manifest.name, manifest.format, manifest.licence.id) == ("support", "onnx-genai", "gemma")
    assert manifest.source.location == str(folder)
    assert manifest.source.converted_by is not None
    assert manifest.source.converted_by.endswith("int8")
    assert {"README.md", "LICENSE", "model.onnx"} <= {file.path for file in manifest.files}
    assert registry.promote("support") == result.added.entry
    assert list((registry.root / PARTIAL).iterdir()) == []


@pytest.mark.usefixtures("builder")
def test_a_builder_that_fails_is_quoted_and_leaves_nothing(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    with pytest.raises(ModelError, match="no such precision: fp32"):
        add_folder(registry, hugging_face(tmp_path / "support"), How(precision="fp32"), no_bar)
    assert [entry.reference for entry in registry.entries()] == ["builtin"]
    assert list((registry.root / PARTIAL).iterdir()) == []


@pytest.mark.usefixtures("builder")
def test_a_folder_may_be_kept_as_it_is(tmp_path: Path) -> None:
    result = add_folder(registry_in(tmp_path), hugging_face(tmp_path / "support"), How(as_is=True), no_bar)
    assert (result.added.entry.manifest.format, result.unconverted) == ("safetensors", ())


def test_without_the_extra_it_is_kept_as_it_is_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "find_spec", lambda _: None)
    result = add_folder(registry_in(tmp_path), hugging_face(tmp_path / "support"), How(), no_bar)
    assert result.added.entry.manifest.format == "safetensors"
    assert result.unconverted == ("onnxruntime_genai", "onnx", "torch", "transformers")
    with pytest.raises(ModelError, match=r"penstock\[convert\]"):
        convert.convert(convert.ModelFolder(tmp_path, "safetensors", (), ()), tmp_path / "out", "int4")


def test_no_service_and_no_lock_of_them_has_the_converter() -> None:
    root = Path(__file__).parents[4]
    lock = (root / "requirements.lock").read_text().splitlines()
    named = {line.split("==")[0] for line in lock}
    assert named.isdisjoint({"torch", "onnx-ir", "transformers"})
    for project in (root / "services").glob("*/pyproject.toml"):
        assert "penstock[convert" not in project.read_text()
        assert ",convert" not in project.read_text()
        needed = tomllib.loads(project.read_text())["project"]["dependencies"]
        assert not [each for each in needed if each.startswith("onnxruntime-genai")]  # an extra: `genai`
