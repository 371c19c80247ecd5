"""The manifest: what it refuses, how it notices missing and changed files, and what the shipped one promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.support.tuning_data import entry, write_manifest

from penstock_tuning.data import manifest as manifests
from penstock_tuning.data.errors import ManifestError
from penstock_tuning.data.readers import READERS


def test_files_that_are_missing_or_changed_are_named(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("first\n")
    path = write_manifest(tmp_path, one=entry("one", "*.txt"), two=entry("two", "*.txt"))
    measured = manifests.load(path).sources["one"].measure(tmp_path)
    path.write_text(manifests.with_digests(path.read_text(), {"one": measured}))

    wrong = manifests.verify(manifests.load(path), tmp_path)
    assert list(wrong) == ["two"]
    assert "missing" in wrong["two"] and "two/*.txt" in wrong["two"]

    (tmp_path / "one" / "a.txt").write_text("other\n")
    assert "changed" in manifests.verify(manifests.load(path), tmp_path)["one"]


def test_a_file_on_two_sides_of_the_split_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("first\n")
    path = write_manifest(tmp_path, a=entry("one", "*.txt"), b=entry("one", "a.txt", split="test"))
    assert "is also in a, which is train" in manifests.verify(manifests.load(path), tmp_path)["b"]


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"nonsense": 1}},
        {"labels": {"toxicity": 2}},
        {"split": "dev"},
        {"tasks": []},
        {"licence": None},
        {"typo": 1},
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    row = {key: value for key, value in {**entry("one", "*.txt"), **change}.items() if value is not None}
    with pytest.raises(ManifestError):
        manifests.load(write_manifest(tmp_path, one=row))


def test_new_digests_leave_the_rest_of_the_text_alone() -> None:
    text = (
        "version: 1\nsources:\n  # first\n  a:\n    path: x\n    digest: unset\n    tasks: [t]\n  b:\n    digest: c\n"
    )
    changed = manifests.with_digests(text, {"a": "111", "b": "222"})
    assert changed == text.replace("unset", "111").replace("digest: c", "digest: 222")
    assert manifests.with_digests(text, {"a": "111"}) == text.replace("unset", "111")


def test_the_shipped_manifest_names_what_exists_and_holds_out_every_kind() -> None:
    manifest = manifests.load()
    assert {source.reader for source in manifest.sources.values()} <= set(READERS)
    assert all(len(source.digest) == 64 for source in manifest.sources.values())
    held_out = {source.kind for source in manifest.of("safety", "test")}
    assert {"direct", "email", "indirect", "jailbreak"} <= held_out
    assert {"coding", "writing", "mathematics", "chat", "tools", "alarming", "question"} <= held_out
    for task in ("safety", "pii", "entailment", "similarity", "text"):
        for split in ("train", "validation", "test"):
            assert list(manifest.of(task, split)), (task, split)


def test_no_file_pattern_of_the_shipped_manifest_is_on_two_sides() -> None:
    sides: dict[tuple[str, str], str] = {}
    for source in manifests.load().sources.values():
        for pattern in source.files:
            assert sides.setdefault((source.path, pattern), source.split) == source.split, source.name


def test_attributions_name_what_training_reads_and_nothing_else(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path,
        a=entry("one", "*.txt", origin="x/one"),
        b=entry("one", "b.txt", origin="x/one"),
        c=entry("two", "*.txt", origin="x/two", split="test"),
        d=entry("three", "*.txt", origin="x/three", tasks=["pii"]),
        e=entry("four", "*.txt", origin="x/four", tasks=["resource"], licence="CC0-1.0"),
    )
    lines = manifests.load(path).attributions(["safety"])
    assert lines == ["- https://github.com/x/one (MIT): a, b", "- https://github.com/x/four (CC0-1.0): e"]


def test_every_licence_is_a_permissive_one() -> None:
    text = manifests.shipped_path().read_text("utf-8")
    licences = {row["licence"] for row in yaml.safe_load(text)["sources"].values()}
    assert licences == {
        "Apache-2.0",
        "BSD-3-Clause",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC0-1.0",
        "MIT",
        "MIT OR Apache-2.0",
        "Unlicense",
        "public-domain",
    }
