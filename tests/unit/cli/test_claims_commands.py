"""`penstock claims`: what is deleted, what is left, and asking before it can hurt."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.claims_commands import collect, lifetimes
from penstock.cli.main import app
from penstock.contracts import topics
from penstock.runtime.claim_stores import FolderStore, Stored
from penstock.runtime.claims import Claims

DAY_S = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def add(store: FolderStore, folder: Path, topic: str, value: bytes, *, days_old: float) -> str:
    """Check a value in and make it old; its name."""
    before = {one.name for one in store.list()}
    Claims(store, threshold=1).check_in(topic, value, time.time_ns() // 1_000_000)
    (name,) = {one.name for one in store.list()} - before
    then = time.time() - days_old * DAY_S
    os.utime(folder / name, (then, then))
    return name


def names(store: FolderStore) -> set[str]:
    return {one.name for one in store.list()}


def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["claims", *arguments], input=stdin)
    return done.exit_code, done.stdout


def test_what_a_record_or_dead_letter_may_lead_to_is_kept(store: FolderStore, tmp_path: Path) -> None:
    kept = {
        add(store, tmp_path, topics.REQUESTS, b"1" * 9, days_old=15.9),
        add(store, tmp_path, topics.ANONYMIZED, b"2" * 9, days_old=27.9),
        add(store, tmp_path, topics.RESULTS, b"3" * 9, days_old=6.9),
    }
    for topic, days in ((topics.REQUESTS, 16.1), (topics.ANONYMIZED, 28.1), (topics.RESULTS, 7.1)):
        add(store, tmp_path, topic, b"old", days_old=days)
    status, said = run("gc", "--store", str(tmp_path), "--json")
    assert status == 0
    assert json.loads(said)["deleted"] == 3
    assert names(store) == kept


def test_what_is_not_ours_is_left_and_what_was_half_written_goes(store: FolderStore, tmp_path: Path) -> None:
    add(store, tmp_path, topics.REQUESTS, b"old", days_old=400)
    for name in ("README", "open/llm.anonymized/notes.txt", ".partial/abc"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    run("gc", "--store", str(tmp_path))
    assert names(store) == {"README", "open/llm.anonymized/notes.txt"}


def test_a_dry_run_deletes_nothing(store: FolderStore, tmp_path: Path) -> None:
    old = add(store, tmp_path, topics.REQUESTS, b"old", days_old=400)
    status, said = run("gc", "--store", str(tmp_path), "--dry-run")
    assert (status, "1 objects would be deleted" in said) == (0, True)
    assert names(store) == {old}


def test_deleting_earlier_than_records_allow_is_asked_about(store: FolderStore, tmp_path: Path) -> None:
    young = add(store, tmp_path, topics.ANONYMIZED, b"young", days_old=2)
    status, _ = run("gc", "--store", str(tmp_path), "--older-than", "1d", stdin="n\n")
    assert status == 1
    assert names(store) == {young}
    status, _ = run("gc", "--store", str(tmp_path), "--older-than", "1d", "--yes")
    assert status == 0
    assert names(store) == set()


def test_an_object_that_was_renewed_since_it_was_listed_is_kept(store: FolderStore, tmp_path: Path) -> None:
    name = add(store, tmp_path, topics.REQUESTS, b"old", days_old=400)

    class Late(FolderStore):
        def stat(self, name: str) -> Stored | None:
            os.utime(tmp_path / name)  # a dead letter is sent again just now
            return super().stat(name)

        def list(self):  # type: ignore[no-untyped-def]  # as it was before
            return iter([Stored(name, 3, 0.0)])

    assert list(collect(Late(tmp_path), lifetimes(None), time.time(), dry_run=False)) == []
    assert names(store) == {name}


def test_list_counts_by_topic(store: FolderStore, tmp_path: Path) -> None:
    add(store, tmp_path, topics.REQUESTS, b"12345", days_old=2)
    add(store, tmp_path, topics.REQUESTS, b"123", days_old=1)
    add(store, tmp_path, topics.RESULTS, b"1234", days_old=0)
    status, said = run("list", "--store", tmp_path.as_uri(), "--json")
    rows = {row["topic"]: (row["objects"], row["bytes"], round(row["oldest_s"] / DAY_S)) for row in json.loads(said)}
    assert (status, rows) == (0, {"llm.requests": (2, 8, 2), "llm.results": (1, 4, 0)})


def test_without_a_store_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_CLAIM_STORE", raising=False)
    done = CliRunner().invoke(app, ["claims", "gc"])
    assert done.exit_code == 1
    assert "PENSTOCK_CLAIM_STORE" in done.output
