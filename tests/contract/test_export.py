"""`python -m penstock.contracts.export`: writes, compares, and says what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from penstock.contracts import export
from penstock.contracts.errors import UnsupportedSchema
from penstock.contracts.events import TokensGenerated


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    assert export.main(["write", str(folder)]) == 0
    assert export.main(["release", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(released: Path, tmp_path: Path) -> Path:
    """What was written and released, to be changed by one test."""
    return Path(shutil.copytree(released, tmp_path / "contracts"))


def edit(path: Path, *, drop: str) -> None:
    schema = json.loads(path.read_text())
    schema["properties"].pop(drop)
    path.write_text(json.dumps(schema))


def test_what_was_written_passes(folder: Path) -> None:
    assert export.main(["check", str(folder)]) == 0
    assert export.write(folder) == []


def test_an_edited_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder / "schemas/penstock.tokens-generated.v1.json", drop="text")
    assert export.main(["check", str(folder)]) == 1
    assert "penstock.tokens-generated.v1.json is not what the models say" in capsys.readouterr().err


def test_a_missing_and_a_stray_file_are_named(folder: Path) -> None:
    (folder / "asyncapi.json").unlink()
    (folder / "schemas/penstock.gone.v1.json").write_text("{}")
    missing, stray = export.check(folder)
    assert "asyncapi.json is not" in missing
    assert "penstock.gone.v1.json belongs to no message" in stray
    assert sorted(export.write(folder)) == ["asyncapi.json", "schemas/penstock.gone.v1.json"]


def test_a_break_of_the_baseline_is_refused_and_cannot_be_released(folder: Path) -> None:
    path = folder / "baseline/penstock.tokens-generated.v1.json"
    old = json.loads(path.read_text())
    old["properties"]["voice"] = {"type": "string"}
    path.write_text(json.dumps(old))
    assert export.check(folder) == [
        "penstock.tokens-generated/1: voice: is removed; readers of the former release expect it. Skip a version"
    ]
    with pytest.raises(SystemExit, match="voice: is removed"):
        export.release(folder)


@pytest.mark.parametrize(("version", "refused"), [(2, True), (3, False)])
def test_only_a_version_that_former_readers_refuse_may_remove_a_field(
    folder: Path, monkeypatch: pytest.MonkeyPatch, version: int, refused: bool
) -> None:
    path = folder / "baseline/penstock.tokens-generated.v1.json"
    old = json.loads(path.read_text())
    old["properties"]["voice"] = {"type": "string"}
    path.write_text(json.dumps(old))
    monkeypatch.setattr(TokensGenerated, "schema_version", version)
    export.write(folder)
    assert any("voice: is removed" in problem for problem in export.check(folder)) is refused
    if not refused:
        with pytest.raises(UnsupportedSchema):
            reference = TokensGenerated.schema_ref()
            monkeypatch.undo()
            TokensGenerated.accepts(reference)


def test_a_released_message_needs_a_reader(folder: Path) -> None:
    (folder / "baseline/penstock.gone.v1.json").write_text("{}")
    (folder / "baseline/penstock.tokens-generated.v9.json").write_text("{}")
    assert export.check(folder) == [
        "penstock.gone/1 was released and has no reader any more",
        "penstock.tokens-generated/9 was released and has no reader any more",
    ]


def test_an_empty_baseline_is_no_baseline(tmp_path: Path) -> None:
    export.write(tmp_path)
    assert "holds no schemas" in export.check(tmp_path)[0]
