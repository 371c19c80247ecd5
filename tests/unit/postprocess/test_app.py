"""Settings and the composition root."""

from __future__ import annotations

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock.runtime.app import Resources
from penstock.runtime.kafka import Names
from penstock.runtime.settings import BadSettings, parse
from penstock.vault import new_key
from penstock_postprocess.app import build
from penstock_postprocess.settings import Settings


def _settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    return parse(Settings)


def test_builds_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch, VAULT_KEYS=new_key("k1"))
    stage = build(settings, Resources(settings, Names(""), "postprocess"))
    assert stage.name == "postprocess"
    assert set(stage.versions) == {"postprocess"}


def test_keys_are_required_and_the_way_to_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_VAULT_KEYS", raising=False)
    with pytest.raises(BadSettings, match=r"PENSTOCK_VAULT_KEYS is required.*penstock vault-key"):
        _settings(monkeypatch)


def test_a_bad_key_is_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch, VAULT_KEYS="k1:c2VjcmV0")
    assert "c2VjcmV0" not in repr(settings)
    with pytest.raises(ConfigurationError, match="PENSTOCK_VAULT_KEYS") as refused:
        build(settings, Resources(settings, Names(""), "postprocess"))
    assert "c2VjcmV0" not in refused.value.message


def test_bad_trim_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings, match="PENSTOCK_POSTPROCESS_TRIM"):
        _settings(monkeypatch, VAULT_KEYS=new_key("k1"), POSTPROCESS_TRIM="words")
