"""Fetching from a hub: whole files of one commit, resumed, checked, and clear words where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.hub import COMMIT, FakeHub
from tests.support.models import SHIPPED, hugging_face, tiny

from penstock.models.adding import How, Result, add_from_hub
from penstock.models.entries import problems
from penstock.models.errors import HubError, ModelDamaged, ModelError, ModelRefused
from penstock.models.hub import Hub, download_folder, parse
from penstock.models.registry import Registry
from penstock.models.storage import PARTIAL

LARGE = "model.onnx.data"
"""Of 160,384 bytes."""


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", SHIPPED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny(tmp_path / "tiny")


def add(registry: Registry, hub: FakeHub, reference: str = "hub:acme/small", token: str | None = None) -> Result:
    @contextmanager
    def bar(_: str, total: int) -> Iterator[Any]:
        yield lambda _: None

    with Hub(hub.endpoint, token, pause=lambda _: None) as client:
        return add_from_hub(registry, reference, How(), bar, client)


def test_a_model_is_fetched_checked_and_added(registry: Registry, folder: Path) -> None:
    (folder / "train.py").write_text("x")
    with FakeHub("acme/small", folder) as hub:
        result = add(registry, hub, "hub:acme/small@v1")
    manifest = result.added.entry.manifest
    assert (result.added.new, manifest.name, result.left_out) == (True, "small", ("train.py",))
    assert (manifest.source.kind, manifest.source.location) == ("hub", "acme/small")
    assert manifest.source.revision == COMMIT
    assert problems(result.added.entry) == []
    assert list((registry.root / PARTIAL).iterdir()) == []
    assert hub.fetched("train.py") == []


def test_progress_is_told_of_every_byte_once(folder: Path, tmp_path: Path) -> None:
    told: list[int] = []
    with (
        FakeHub("acme/small", folder, cut_after={LARGE: [100_000, 3]}) as hub,
        Hub(hub.endpoint, pause=lambda _: None) as client,
    ):
        model = client.look("acme/small", "main")
        client.fetch(model, tmp_path, told.append)
    assert sum(told) == model.bytes == sum((tmp_path / file.name).stat().st_size for file in model.files)


def test_a_cut_answer_goes_on_where_it_ended(registry: Registry, folder: Path) -> None:
    with FakeHub("acme/small", folder, cut_after={LARGE: [100_000, 1_000]}) as hub:
        result = add(registry, hub)
        assert hub.fetched(LARGE) == [None, "bytes=100000-", "bytes=101000-"]
    assert problems(result.added.entry) == []


def test_a_later_command_goes_on_where_an_earlier_one_ended(registry: Registry, folder: Path) -> None:
    never = {LARGE: [100_000, *[0] * 5]}
    with FakeHub("acme/small", folder, cut_after=never) as hub:
        with pytest.raises(HubError, match="same command goes on from there"):
            add(registry, hub)
        assert [entry.reference for entry in registry.entries()] == ["builtin"]
        hub.asked.clear()
        result = add(registry, hub)
        assert hub.fetched(LARGE) == ["bytes=100000-"]
        assert hub.fetched("genai_config.json") == []
    assert problems(result.added.entry) == []


def test_a_server_without_ranges_is_read_from_the_beginning(registry: Registry, folder: Path) -> None:
    with FakeHub("acme/small", folder, cut_after={LARGE: [100_000]}, ranges=False) as hub:
        assert problems(add(registry, hub).added.entry) == []


@pytest.mark.parametrize("name", [LARGE, "genai_config.json"])
def test_other_bytes_than_declared_are_not_taken(registry: Registry, folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    with FakeHub("acme/small", folder, instead={name: content[:-1] + b"\x00"}) as hub:
        with pytest.raises(ModelDamaged, match=f"{name} of acme/small is not the file"):
            add(registry, hub)
        hub.behaviour.instead[name] = content + b"more"
        with pytest.raises(ModelDamaged, match="longer than the hub declares"):
            add(registry, hub)
        assert [entry.reference for entry in registry.entries()] == ["builtin"]
        hub.behaviour.instead.clear()
        assert problems(add(registry, hub).added.entry) == []


def test_a_file_without_any_digest_is_not_taken(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub("acme/small", folder) as hub:
        said = hub.description()
        for entry in said["siblings"]:
            entry.pop("blobId")
        monkeypatch.setattr(hub, "description", lambda: said)
        with pytest.raises(ModelDamaged, match="its digest differs"):
            add(registry, hub)


def test_busy_answers_are_waited_out_and_others_are_explained(registry: Registry, folder: Path) -> None:
    with FakeHub("acme/small", folder, statuses=[503, 429, 500]) as hub:
        assert add(registry, hub).added.new
        hub.behaviour.statuses[:] = [503] * 5
        with pytest.raises(HubError, match="answered 503"):
            add(registry, hub)
        hub.behaviour.statuses[:] = [418]
        with pytest.raises(HubError, match="answered 418"):
            add(registry, hub)
        with pytest.raises(HubError, match="has no acme/other@main"):
            add(registry, hub, "hub:acme/other")


def test_a_token_opens_what_is_closed_and_goes_nowhere_else(registry: Registry, folder: Path) -> None:
    with FakeHub("acme/small", folder, token="secret") as hub:
        with pytest.raises(HubError, match="HF_TOKEN") as refused:
            add(registry, hub, token="wrong")
        assert "wrong" not in str(refused.value)
        assert add(registry, hub, token="secret").added.new
        assert {one.authorization for one in hub.asked if one.elsewhere} == {None}


def test_no_hub_is_said_so(registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub("acme/small", folder)
    hub.stop()
    with pytest.raises(HubError, match=f"cannot reach {hub.endpoint}.*check the network"):
        add(registry, hub)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        add(registry, hub)


def test_what_answers_like_no_hub_is_said_so(registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub("acme/small", folder) as hub:
        for said in ([], {"sha": "x", "siblings": []}, {"sha": COMMIT, "siblings": [{"rfilename": "a", "size": -1}]}):
            monkeypatch.setattr(hub, "description", lambda said=said: said)
            with pytest.raises(ModelError, match="does not answer as a hub"):
                add(registry, hub)


def test_pickles_are_refused_and_left_out_where_there_are_safetensors(registry: Registry, tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "hf")
    (folder / "pytorch_model.bin").write_bytes(b"x" * 20_000)
    with FakeHub("acme/small", folder) as hub:
        assert add(registry, hub).left_out == ("pytorch_model.bin",)
        assert hub.fetched("pytorch_model.bin") == []
        del hub.files["model.safetensors"]
        with pytest.raises(ModelRefused, match=r"pytorch_model\.bin may hold a pickle"):
            add(registry, hub)
        del hub.files["pytorch_model.bin"]
        with pytest.raises(ModelRefused, match="no safetensors and no ONNX"):
            add(registry, hub)


def test_names_that_lead_out_of_the_folder_are_left_out(registry: Registry, folder: Path) -> None:
    with FakeHub("acme/small", folder) as hub:
        hub.files |= {"../evil.json": b"{}", "sub/config.json": b"{}", "/etc/evil.json": b"{}"}
        assert set(add(registry, hub).left_out) == {"../evil.json", "sub/config.json", "/etc/evil.json"}


def test_one_process_at_a_time_fetches_a_commit(registry: Registry, folder: Path) -> None:
    with FakeHub("acme/small", folder) as hub:
        with Hub(hub.endpoint) as client:
            model = client.look("acme/small", "main")
        with download_folder(registry.root, model), pytest.raises(HubError, match="another process"):
            add(registry, hub)


@pytest.mark.parametrize("endpoint", ["http://hub.example.org", "ftp://127.0.0.1", "hub.example.org", "https://", ""])
def test_an_endpoint_that_others_can_read_is_refused(endpoint: str) -> None:
    with pytest.raises(HubError, match="can be no hub"):
        Hub(endpoint)


@pytest.mark.parametrize(
    "reference", ["hub:", "hub:name", "hub:a/b/c", "hub:../x", "hub:a/b@", "hub:a/..", "hub:a b/c"]
)
def test_a_reference_of_another_form_is_refused(reference: str) -> None:
    with pytest.raises(ModelRefused, match="expected hub:ORG/NAME"):
        parse(reference)


def test_references() -> None:
    assert parse("hub:acme/small") == ("acme/small", "main")
    assert parse("hub:acme/small@refs/pr/1") == ("acme/small", "refs/pr/1")
