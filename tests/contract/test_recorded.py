"""Messages recorded from every released version: this release must read them, and write them back the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from penstock.contracts.asyncapi import schema_file
from penstock.contracts.topics import MESSAGES

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "tests/contract/recorded").glob("*/*.json"))


def split(folder: str) -> tuple[str, int]:
    name, _, version = folder.rpartition(".v")
    return name, int(version)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_is_read_and_written_back(path: Path) -> None:
    name, version = split(path.parent.name)
    recorded = json.loads(path.read_text())
    message = MESSAGES[name].model_validate_json(path.read_bytes())
    written = json.loads(message.encode())
    if version == MESSAGES[name].schema_version:
        # nothing that an old writer said may be dropped by a new reader of the same version
        assert {key: written[key] for key in recorded} == recorded


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_follows_the_released_schema(path: Path) -> None:
    recorded = json.loads(path.read_text())
    released, today = (
        json.loads((ROOT / f"docs/contracts/{which}/{path.parent.name}.json").read_text())
        for which in ("baseline", "schemas")
    )
    Draft202012Validator(today).validate(recorded)
    # a request's unknown fields are refused, so fields since the last release are left out
    Draft202012Validator(released).validate({key: recorded[key] for key in recorded if key in released["properties"]})


def test_every_version_of_every_message_is_recorded() -> None:
    recorded = {path.parent.name for path in RECORDED}
    released = {path.stem for path in (ROOT / "docs/contracts/baseline").glob("*.json")}
    assert recorded == released | {schema_file(message).removesuffix(".json") for message in MESSAGES.values()}


def test_every_field_is_recorded_once() -> None:
    for message in MESSAGES.values():
        folder = f"{message.schema_name}.v{message.schema_version}"
        seen = {field for path in RECORDED if path.parent.name == folder for field in json.loads(path.read_text())}
        # the two names of one limit cannot stand in one request
        assert set(message.model_fields) - seen <= {"max_tokens"}, folder


def test_a_newer_writers_field_is_ignored() -> None:
    path = next(path for path in RECORDED if path.parent.name == "penstock.request-screened.v1")
    message = json.loads(path.read_text()) | {"added_later": {"a": 1}}
    assert MESSAGES["penstock.request-screened"].model_validate_json(json.dumps(message))
