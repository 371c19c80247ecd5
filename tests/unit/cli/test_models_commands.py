"""`penstock models`: what each command does to the registry, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.adapters import adapter
from tests.support.hub import COMMIT, FakeHub
from tests.support.models import hugging_face, tiny
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.cli.models_registry import configured_models_dir


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_MODELS_DIR", str(tmp_path / "registry"))
    return tmp_path / "registry"


def run(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["models", *map(str, arguments)], input=stdin)
    return done.exit_code, done.stdout, done.stderr


def read(*arguments: object) -> Any:
    status, said, why = run(*arguments, "--json")
    assert status == 0, why
    return json.loads(said)


def test_from_adding_to_rolling_back(tmp_path: Path) -> None:
    added = read("add", tiny(tmp_path / "small"), "--licence", "mit", "--prompt", "support@1")
    reference = added["reference"]
    assert (added["new"], added["aliases"], added["prompts"]) == (True, [], ["support@1"])
    assert read("promote", "small") == {"alias": "champion", "was": "builtin", "now": reference}
    assert [(one["name"], one["aliases"]) for one in read("list")] == [("penstock-lm", []), ("small", ["champion"])]
    shown = read("show", "champion")
    assert (shown["reference"], shown["licence"]["id"]) == (reference, "mit")
    assert [change["action"] for change in shown["changes"]] == ["promote"]
    assert read("rollback") == {"alias": "champion", "was": reference, "now": "builtin"}
    assert read("remove", reference, "--yes") == {"removed": reference}
    assert [one["aliases"] for one in read("list")] == [["champion"]]


def test_people_read_the_same(tmp_path: Path) -> None:
    status, said, why = run("add", hugging_face(tmp_path / "hf", "---\nlicense: gemma\n---\n"), "--as-is")
    assert (status, "kept as it is" in said) == (0, True)
    assert "restricts use: the prohibited use policy applies" in why
    status, said, _ = run("list")
    assert (status, said.splitlines()[0].split()[:3]) == (0, ["model", "alias", "format"])
    assert "gemma (restricts use)" in said
    assert "apache-2.0" in said
    status, said, _ = run("show", "builtin")
    assert status == 0
    for expected in ("penstock-lm@", "1024 tokens", "int8", "held-out phrases: exact 34.5", "model.onnx.data"):
        assert expected in said


def test_a_folder_that_is_refused_ends_in_one_sentence(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "small")
    (folder / "optimizer.pt").write_bytes(b"x")
    status, said, why = run("add", folder)
    assert (status, said) == (1, "")
    assert "optimizer.pt may hold a pickle" in why


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "small")
    (folder / "train.py").write_text("x")
    _, _, why = run("add", folder)
    assert "left out: train.py" in why


def test_evaluations_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text('[{"dataset": "held out", "metric": "exact", "value": 0.5}]')
    added = read("add", tiny(tmp_path / "small"), "--evaluation", path)
    assert added["evaluations"] == [{"dataset": "held out", "metric": "exact", "value": 0.5}]
    for text in ("{}", '[{"dataset": "x"}]', "no json"):
        path.write_text(text)
        assert run("add", tmp_path / "small", "--evaluation", path)[0] == 2
    assert run("add", tmp_path / "small", "--evaluation", tmp_path / "none")[0] == 2


def test_verify_names_the_damaged_file_and_fails(tmp_path: Path, root: Path) -> None:
    reference = read("add", tiny(tmp_path / "small"))["reference"]
    assert run("verify")[0] == 0
    (damaged,) = root.glob("revisions/small/*/files/model.onnx.data")
    damaged.chmod(0o644)
    damaged.write_bytes(b"x")
    status, said, why = run("verify")
    assert status == 1
    assert f"{reference}: damaged" in said
    assert "penstock-lm@" in said
    assert "model.onnx.data has changed" in why
    status, said, _ = run("verify", reference, "--json")
    assert (status, json.loads(said)["ok"]) == (1, False)


def test_removing_asks_and_wants_a_revision(tmp_path: Path) -> None:
    reference = read("add", tiny(tmp_path / "small"))["reference"]
    assert run("remove", "small")[0] == 2
    assert run("remove", reference, stdin="n\n")[0] == 1
    assert len(read("list")) == 2
    assert run("remove", reference, stdin="y\n")[0] == 0
    assert len(read("list")) == 1


def test_promoting_what_is_there_already_says_so(tmp_path: Path) -> None:
    reference = read("add", tiny(tmp_path / "small"))["reference"]
    run("promote", "small")
    assert run("promote", "small")[1].strip() == f"champion is {reference} already"


def test_the_local_stacks_services_get_an_absolute_folder(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured_models_dir() == str(root)
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("PENSTOCK_MODELS_DIR")
    assert configured_models_dir() == str(tmp_path / "state" / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_MODELS_DIR", "here")
    assert configured_models_dir() == str(tmp_path / "here")


def test_a_model_comes_from_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FakeHub("acme/small", tiny(tmp_path / "any"), token="secret") as hub:
        monkeypatch.setenv("PENSTOCK_HUB_ENDPOINT", hub.endpoint)
        status, _, why = run("add", "hub:acme/small")
        assert (status, "HF_TOKEN" in why) == (1, True)
        monkeypatch.setenv("HF_TOKEN", "secret")
        added = read("add", "hub:acme/small", "--name", "support", "--licence", "mit")
    assert (added["name"], added["source"]["location"], added["source"]["revision"]) == (
        "support",
        "acme/small",
        COMMIT,
    )
    status, _, why = run("add", "hub:acme/small", "--hub-endpoint", "http://hub.example.org")
    assert (status, "https://" in why) == (1, True)


def test_the_hubs_client_is_imported_only_where_it_is_used() -> None:
    code = "import sys, penstock.cli.main; sys.exit('httpx2' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_adapter_is_added_with_its_base_and_promoted_under_its_own_name(tmp_path: Path) -> None:
    base = read("add", tiny(tmp_path / "small"))["reference"]
    added = read("add", adapter(tmp_path / "tone"), "--adapter-of", "small", "--licence", "mit")
    reference = added["reference"]
    assert (added["adapter"]["base"], added["format"], added["licence"]["id"]) == (base, "lora", "mit")
    assert read("promote", "tone") == {"alias": "tone", "was": None, "now": reference}
    assert [(one["name"], one["aliases"]) for one in read("list")] == [
        ("penstock-lm", ["champion"]),
        ("small", []),
        ("tone", ["tone"]),
    ]
    status, said, _ = run("show", "tone")
    assert status == 0
    for expected in (f"{base}, whose digest in results is", "4, scaled by 2", "down_proj, gate_proj, k_proj"):
        assert expected in said
    assert f"lora of {base}" in run("list")[1]
    assert run("verify", "tone")[0] == 0
    status, _, why = run("add", tmp_path / "tone", "--adapter-of", "builtin", "--name", "other")
    assert (status, "is it for another model?" in why) == (1, True)


def test_an_adapter_comes_from_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    read("add", tiny(tmp_path / "small"))
    with FakeHub("acme/tone", adapter(tmp_path / "any")) as hub:
        added = read("add", "hub:acme/tone", "--adapter-of", "small", "--hub-endpoint", hub.endpoint)
    assert (added["name"], added["source"]["revision"], added["adapter"]["rank"]) == ("tone", COMMIT, 4)
