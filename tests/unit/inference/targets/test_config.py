"""The file of targets: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.targets import config, target

from penstock.contracts.errors import ConfigurationError
from penstock_inference.targets.config import Config, load

YAML = """
balance: least_busy
targets:
  - name: main
    base_url: https://llm.example.org/v1/
    model: big
    api_key_env: MAIN_KEY
    price: {input: 0.15, output: 0.6}
  - {name: spare, base_url: "http://10.0.0.2:8000/v1", model: small, role: fallback}
budgets:
  total: {day: 10}
  tenants: {"*": {day: 1}}
"""


def test_yaml_json_and_a_variable_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(YAML)
    read = load(str(tmp_path / "targets.yaml"))
    text = read.model_dump_json()
    (tmp_path / "targets.json").write_text(text)
    assert load(str(tmp_path / "targets.json")) == load(text) == read
    main = read.targets[0]
    assert (main.base_url, main.host) == ("https://llm.example.org/v1", "llm.example.org")
    assert main.price.of(2_000, 1_000) == pytest.approx(0.9)
    assert read.budgets.of_tenant("anyone").day == 1
    assert read.digest == load(text).digest != config(target("main")).digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "Main"}, "targets.0.name"),
        ({"base_url": "llm.example.org/v1"}, "http or https URL"),
        ({"base_url": "https://me:secret@llm.example.org/v1"}, "never in the URL"),
        ({"base_url": "https://llm.example.org/v1?key=secret"}, "never in the URL"),
        ({"weight": 0}, "targets.0.weight"),
        ({"role": "canary"}, "would never be called"),
        ({"share": 0.5}, "share is of a canary"),
        ({"role": "shadow", "share": 1}, "no target has the role primary"),
        ({"api_key": "secret"}, "targets.0.api_key"),
        ({"api_key_env": "A", "api_key_file": "b"}, "one of the two"),
        ({"extra": {"stream": False}}, "stream is set by this service"),
    ],
)
def test_what_cannot_work_is_refused_by_its_place_and_without_the_value(change: dict[str, Any], says: str) -> None:
    text = json.dumps({"targets": [{**target("main"), **change}]})
    with pytest.raises(ConfigurationError) as raised:
        load(text)
    assert says in raised.value.message
    assert raised.value.message.startswith("PENSTOCK_INFERENCE_TARGETS: ")
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": "big"}, "local and model"),
        ({"base_url": "https://llm.example.org/v1"}, "base_url is of a server"),
        ({"omit": ["seed"]}, "omit is of a server"),
        ({"api_key_env": "KEY"}, "api_key_env is of a server"),
        ({"timeouts": {"connect_s": 1}}, "timeouts.connect_s is of a server"),
        ({"engine": "other"}, "targets.0.engine"),
        ({"local": ""}, "targets.0.local"),
    ],
)
def test_what_a_local_target_has_not_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(json.dumps({"targets": [{"name": "own", "local": "champion", **fields}]}))
    assert says in raised.value.message


@pytest.mark.parametrize(("without", "says"), [("base_url", "base_url, or local"), ("model", "targets.0.model")])
def test_what_a_server_needs_is_named(without: str, says: str) -> None:
    fields = {name: value for name, value in target("main").items() if name != without}
    with pytest.raises(ConfigurationError) as raised:
        load(json.dumps({"targets": [fields]}))
    assert says in raised.value.message
    with pytest.raises(ConfigurationError, match="engine is of a local target"):
        load(json.dumps({"targets": [target("main", engine="genai")]}))


def test_a_local_target_is_named_by_its_model() -> None:
    (own,) = config({"name": "own", "local": "support@3f2a", "engine": "genai"}).targets
    assert (own.model, own.provider, own.host, own.engine) == ("support@3f2a", "penstock", "", "genai")


def test_names_are_used_once() -> None:
    with pytest.raises(ConfigurationError, match="same name"):
        load(json.dumps({"targets": [target("a"), target("a")]}))


@pytest.mark.parametrize("text", ["targets: [", "- 1\n", ""])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "targets.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"targets\.yaml"):
        load(str(path))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml.*FileNotFoundError"):
        load("nowhere.yaml")


def _only(**more: Any) -> Any:
    return config(target("main", **more)).targets[0]


def test_keys_come_from_a_variable_or_a_file_and_are_never_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    by_name, by_file = _only(api_key_env="KEY"), _only(api_key_file=str(tmp_path / "key"))
    key = by_name.key({"KEY": "from-env"})
    assert key.get_secret_value() == "from-env"
    assert "from-env" not in repr(key)
    assert by_file.key({}).get_secret_value() == "from-file"
    assert _only().key({"OPENAI_API_KEY": "x"}).get_secret_value() == ""


@pytest.mark.parametrize("more", [{"api_key_env": "KEY"}, {"api_key_file": "/nowhere/key"}])
def test_a_key_that_is_not_there_is_refused_at_start(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="target main"):
        _only(**more).key({"KEY": ""})


def test_the_digest_follows_the_content() -> None:
    assert isinstance(config(target("a")), Config)
    assert config(target("a")).digest != config(target("a", weight=2)).digest
