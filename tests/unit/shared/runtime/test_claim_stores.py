"""`penstock.runtime.claim_stores`: one behaviour, tried on a folder and on a real S3-compatible server."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.s3 import S3Server

from penstock.contracts.errors import BackendUnavailable, ConfigurationError
from penstock.runtime import claim_stores
from penstock.runtime.claim_stores import ClaimStore, FolderStore, ObjectMissing, ObjectTooLarge, open_store

NAME = "open/llm.anonymized/20261121/" + "a" * 64
OTHER = "restricted/llm.requests/20261121/" + "b" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClaimStore:
    if request.param == "folder":
        return open_store(tmp_path.as_uri())
    server: S3Server = request.getfixturevalue("server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid.uuid4().hex}"
    server.make_bucket(bucket)
    return open_store(f"s3://{bucket}/some/prefix")


def test_what_is_put_is_got(store: ClaimStore) -> None:
    value = os.urandom(700_000)
    store.put(NAME, value)
    assert store.get(NAME, len(value)) == value


def test_putting_again_writes_over_and_makes_it_young(store: ClaimStore) -> None:
    store.put(NAME, b"one")
    first = store.stat(NAME)
    assert first is not None
    time.sleep(1.1)  # the age of an S3 object is in whole seconds
    store.put(NAME, b"twos")
    second = store.stat(NAME)
    assert second is not None
    assert (second.name, second.bytes) == (NAME, 4)
    assert second.modified_s > first.modified_s
    assert abs(second.modified_s - time.time()) < 60
    assert store.get(NAME, 10) == b"twos"


def test_what_is_not_there_is_missing(store: ClaimStore) -> None:
    store.put(OTHER, b"x")
    with pytest.raises(ObjectMissing):
        store.get(NAME, 10)
    assert store.stat(NAME) is None
    store.delete(NAME)


def test_more_than_asked_for_is_not_read(store: ClaimStore) -> None:
    store.put(NAME, b"12345")
    with pytest.raises(ObjectTooLarge) as caught:
        store.get(NAME, 4)
    assert caught.value.size == 5


def test_list_and_delete(store: ClaimStore) -> None:
    assert list(store.list()) == []
    store.put(NAME, b"1")
    store.put(OTHER, b"22")
    assert {(one.name, one.bytes) for one in store.list()} == {(NAME, 1), (OTHER, 2)}
    store.delete(NAME)
    assert [one.name for one in store.list()] == [OTHER]


def test_a_folder_that_is_gone_is_unavailable_not_empty(tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    folder.mkdir()
    store = FolderStore(folder)
    folder.rmdir()
    for call in (
        lambda: store.put(NAME, b"x"),
        lambda: store.get(NAME, 1),
        lambda: store.stat(NAME),
        lambda: list(store.list()),
    ):
        with pytest.raises(BackendUnavailable) as caught:
            call()
        assert caught.value.code == "claim_store_unavailable"
    assert not folder.exists()


def test_an_interrupted_write_leaves_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)

    def fail(_: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(claim_stores.os, "fsync", fail)
    with pytest.raises(BackendUnavailable):
        store.put(NAME, b"x")
    assert not (tmp_path / NAME).exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_objects_are_for_owner_and_group(tmp_path: Path) -> None:
    FolderStore(tmp_path).put(OTHER, b"x")
    assert (tmp_path / OTHER).stat().st_mode & 0o007 == 0
    assert (tmp_path / "restricted").stat().st_mode & 0o007 == 0


def test_a_bucket_that_is_not_there_is_unavailable_not_a_lost_object(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://nobody-made-this")
    for call in (lambda: store.get(NAME, 1), lambda: store.put(NAME, b"x")):
        with pytest.raises(BackendUnavailable):
            call()


def test_a_server_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server(tmp_path) as gone:
        pass
    for name, value in gone.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://bucket")
    for call in (lambda: store.get(NAME, 1), lambda: store.put(NAME, b"x"), lambda: list(store.list())):
        with pytest.raises(BackendUnavailable):
            call()


@pytest.mark.parametrize("url", ["relative/folder", "ftp://x/y", "s3://", "file://host/x", "http://x", "s3://b?x=1"])
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PENSTOCK_CLAIM_STORE"):
        open_store(url)


def test_a_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a folder"):
        open_store(str(tmp_path / "no"))
