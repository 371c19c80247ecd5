"""The registry: adding, finding, promoting, rolling back, verifying, removing."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from tests.support.models import SHIPPED, TINY, hugging_face, tiny

from penstock.models import registry as registry_module
from penstock.models import storage
from penstock.models.aliases import ALIASES_FILE, BUILTIN, CHAMPION
from penstock.models.entries import check, problems
from penstock.models.errors import ModelDamaged, ModelError, ModelRefused, NoSuchModel
from penstock.models.facts import Given
from penstock.models.manifest import Evaluation, Source
from penstock.models.registry import Added, Registry

HERE = Source(kind="folder", location="/somewhere")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", SHIPPED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny(tmp_path / "tiny")


def add(registry: Registry, folder: Path, name: str | None = None, **given: object) -> Added:
    return registry.add(folder, source=HERE, name=name, given=Given(**given))  # type: ignore[arg-type]  # fields by name


def other(tmp_path: Path) -> Path:
    return tiny(tmp_path / "other" / "tiny", context_length=128)


def test_the_embedded_model_is_the_first_entry_and_serves_until_another_is_promoted(registry: Registry) -> None:
    (entry,) = registry.entries()
    assert entry.builtin
    assert registry.find(CHAMPION) == registry.find(BUILTIN) == entry
    manifest = entry.manifest
    assert (manifest.name, manifest.context_length, manifest.quantization) == ("penstock-lm", 1024, "int8")
    assert registry.find("penstock-lm").manifest == registry.find(manifest.reference).manifest == manifest
    assert problems(entry) == []
    assert not registry.root.exists()


def test_what_is_added_is_a_whole_copy_with_its_facts(registry: Registry, folder: Path) -> None:
    added = add(registry, folder, licence="apache-2.0", prompts=("support@1",), data=("faq",))
    assert added.new
    manifest = added.entry.manifest
    assert registry.find("tiny") == added.entry
    assert {file.path for file in manifest.files} == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        copied = added.entry.folder / path.name
        assert copied.read_bytes() == path.read_bytes()
        assert copied.stat().st_mode & 0o222 == 0
    assert (manifest.format, manifest.architecture, manifest.context_length) == ("onnx-genai", "llama", 256)
    assert (manifest.quantization, manifest.licence.id) == ("fp32", "apache-2.0")
    assert (manifest.prompts, manifest.data) == (("support@1",), ("faq",))
    assert added.entry.folder.parent.name == manifest.revision
    assert list((registry.root / storage.PARTIAL).iterdir()) == []


def test_the_same_twice_is_one_revision_and_a_changed_fact_or_file_another(
    registry: Registry, folder: Path, tmp_path: Path
) -> None:
    first = add(registry, folder)
    again = add(registry, folder)
    assert (again.new, again.entry) == (False, first.entry)
    evaluated = add(registry, folder, evaluations=(Evaluation(dataset="held out", metric="exact", value=0.5),))
    changed = add(registry, other(tmp_path))
    references = {one.entry.reference for one in (first, evaluated, changed)}
    assert len(references) == 3
    assert {entry.reference for entry in registry.entries()} == {BUILTIN, *references}


def test_equal_files_of_several_revisions_are_stored_once(registry: Registry, folder: Path) -> None:
    first, second = add(registry, folder), add(registry, folder, licence="mit")
    for name in ("model.onnx", "model.onnx.data"):
        assert (first.entry.folder / name).samefile(second.entry.folder / name)
    registry.remove(first.entry.reference)
    assert problems(second.entry) == []


def test_a_damaged_copy_does_not_spread(registry: Registry, folder: Path) -> None:
    first = add(registry, folder)
    damaged = first.entry.folder / "model.onnx.data"
    damaged.chmod(0o644)
    damaged.write_bytes(bytes(damaged.stat().st_size))
    second = add(registry, folder, licence="mit")
    assert problems(second.entry) == []


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nothing", "no model 'nothing'"),
        ("tiny@0000", "no model 'tiny@0000'"),
        ("tiny@../x", "hexadecimal"),
        ("canary", "no model 'canary'"),
        ("../tiny", "no model"),
        ("", "no model"),
    ],
)
def test_what_is_not_there_is_named(registry: Registry, folder: Path, reference: str, says: str) -> None:
    add(registry, folder)
    with pytest.raises(NoSuchModel, match=says):
        registry.find(reference)


def test_a_revision_is_found_by_its_first_digits_where_they_are_of_one_alone(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = add(registry, folder).entry
    assert registry.find(f"tiny@{first.manifest.revision[:4]}") == first
    number = 0
    while True:  # two revisions with the same first digit
        number += 1
        second = add(registry, folder, licence=f"l{number}").entry
        if second.manifest.revision[0] == first.manifest.revision[0]:
            break
    monkeypatch.setattr(registry_module, "_REVISION", registry_module.re.compile("[0-9a-f]+"))
    with pytest.raises(NoSuchModel, match=" or "):
        registry.find(f"tiny@{first.manifest.revision[0]}")


def test_a_name_alone_is_the_newest_revision(registry: Registry, folder: Path, tmp_path: Path) -> None:
    first = add(registry, folder).entry
    second = add(registry, other(tmp_path)).entry
    newer = second if second.manifest.added_ms >= first.manifest.added_ms else first
    assert registry.find("tiny") == newer == second


def test_promoting_and_rolling_back(registry: Registry, folder: Path, tmp_path: Path) -> None:
    first, second = add(registry, folder).entry, add(registry, other(tmp_path)).entry
    assert registry.promote(first.reference) == first
    assert registry.find(CHAMPION) == first
    registry.promote(second.reference)
    registry.promote(second.reference)  # twice is as good as once
    assert registry.find(CHAMPION) == second
    assert registry.rollback() == first
    assert registry.rollback().builtin
    with pytest.raises(ModelRefused, match="pointed at nothing before"):
        registry.rollback()
    assert registry.find(CHAMPION).builtin
    changes = [(change.action, change.was, change.now) for change in registry.aliases().changes]
    assert changes == [
        ("promote", BUILTIN, first.reference),
        ("promote", first.reference, second.reference),
        ("promote", second.reference, second.reference),
        ("rollback", second.reference, first.reference),
        ("rollback", first.reference, BUILTIN),
    ]


def test_an_alias_of_ones_own_points_nowhere_at_first(registry: Registry, folder: Path) -> None:
    entry = add(registry, folder).entry
    with pytest.raises(NoSuchModel):
        registry.find("canary")
    with pytest.raises(ModelRefused, match="pointed at nothing before"):
        registry.rollback("canary")
    registry.promote("tiny", "canary")
    assert registry.find("canary") == entry
    assert registry.find(CHAMPION).builtin


def test_names_and_aliases_are_not_mistaken_for_each_other(registry: Registry, folder: Path) -> None:
    add(registry, folder)
    registry.promote("tiny", "canary")
    for name in ("canary", CHAMPION, BUILTIN):
        with pytest.raises(ModelRefused, match="is an alias"):
            add(registry, folder, name)
    with pytest.raises(ModelRefused, match="is a model's name"):
        registry.promote("tiny", "tiny")
    for alias in ("", "A", "a b", BUILTIN, "../x"):
        with pytest.raises(ModelRefused, match="can be no alias"):
            registry.promote("tiny", alias)
    for name in ("", "../x", "a/b", ".hidden", "x" * 97):
        with pytest.raises(ModelRefused, match="can be no model's name"):
            add(registry, folder, name or " ")


def test_a_folder_that_must_be_converted_first_is_kept_and_not_promoted(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, hugging_face(tmp_path / "hf")).entry
    assert (entry.manifest.format, entry.manifest.answers) == ("safetensors", None)
    with pytest.raises(ModelRefused, match=r"penstock\[convert\]"):
        registry.promote("hf")
    assert registry.find(CHAMPION).builtin


def test_a_changed_missing_or_foreign_file_is_found(registry: Registry, folder: Path) -> None:
    entry = add(registry, folder).entry
    check(entry)
    graph = entry.folder / "model.onnx"
    graph.chmod(0o644)
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    (entry.folder / "chat_template.jinja").unlink()
    (entry.folder / "added.py").write_text("")
    sentences = problems(entry)
    assert [sentence.split()[0] for sentence in sentences] == ["chat_template.jinja", "model.onnx", "added.py"]
    with pytest.raises(ModelDamaged, match="remove it and add it again"):
        registry.promote(entry.reference)
    assert registry.find(CHAMPION).builtin


def test_a_rewritten_manifest_is_found(registry: Registry, folder: Path) -> None:
    entry = add(registry, folder, licence="gemma").entry
    path = entry.folder.parent / "manifest.json"
    path.write_text(path.read_text().replace('"gemma"', '"mit"'))
    assert "would be revision" in problems(registry.find("tiny"))[0]


def test_a_changed_embedded_model_is_found_by_its_checksums(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "lm")
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  model.onnx\n")
    assert problems(Registry(tmp_path / "r", folder).find(BUILTIN)) == ["model.onnx is not the one of SHA256SUMS"]


def test_what_an_alias_points_at_is_not_removed(registry: Registry, folder: Path, tmp_path: Path) -> None:
    first, second = add(registry, folder).entry, add(registry, other(tmp_path)).entry
    registry.promote(first.reference)
    registry.promote(second.reference)
    with pytest.raises(ModelRefused, match="is champion"):
        registry.remove(second.reference)
    with pytest.raises(ModelRefused, match="part of the release"):
        registry.remove(BUILTIN)
    registry.remove(first.reference)
    assert not first.folder.exists()
    assert registry.rollback().builtin, "a rollback goes past what was removed"
    registry.remove(second.reference)
    assert [entry.reference for entry in registry.entries()] == [BUILTIN]


def test_a_death_while_adding_leaves_nothing_that_counts(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "sync_folder", die)
    with pytest.raises(KeyboardInterrupt):
        add(registry, folder)
    assert [entry.reference for entry in registry.entries()] == [BUILTIN]
    left = registry.root / storage.PARTIAL / "killed"  # as a kill -9 leaves it
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    monkeypatch.undo()
    assert add(registry, folder).new
    assert not left.exists()


def test_adding_the_same_at_once_is_one_revision(registry: Registry, folder: Path) -> None:
    results: list[Added] = []
    threads = [threading.Thread(target=lambda: results.append(add(registry, folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.new for one in results) == [False, False, False, True]
    assert problems(registry.find("tiny")) == []


def test_a_disk_without_room_is_told_before_copying(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(ModelError, match="MiB free"):
        add(registry, folder)


def test_a_broken_alias_file_says_what_to_do(registry: Registry, folder: Path) -> None:
    add(registry, folder)
    for text in ("", "[]", '{"aliases": {"champion": {"current": "x"}}}'):
        (registry.root / ALIASES_FILE).write_text(text)
        with pytest.raises(ModelError, match="remove it"):
            registry.find(CHAMPION)


def test_a_promoted_revision_that_is_gone_is_named(registry: Registry, folder: Path) -> None:
    entry = add(registry, folder).entry
    registry.promote("tiny")
    registry_module.shutil.rmtree(entry.folder.parent)
    with pytest.raises(NoSuchModel, match=entry.reference):
        registry.find(CHAMPION)


def test_a_manifest_of_a_newer_release_is_refused(registry: Registry, folder: Path) -> None:
    entry = add(registry, folder).entry
    path = entry.folder.parent / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(ModelDamaged, match="upgrade"):
        registry.find(entry.reference)


def test_the_digest_is_that_of_the_loaded_model(registry: Registry) -> None:
    from penstock_inference.layout import ModelLayout

    entry = registry.add(TINY, source=HERE).entry
    assert entry.manifest.answers == ModelLayout.read(entry.folder).digest()
