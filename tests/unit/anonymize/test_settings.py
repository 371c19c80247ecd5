"""`penstock_anonymize.settings` and `app`: bad values refused by name, never with the key."""

from __future__ import annotations

from typing import Any, cast

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock.runtime.settings import BadSettings, parse
from penstock.vault import new_key
from penstock_anonymize.app import build
from penstock_anonymize.settings import Settings


class NoState:
    """Resources that hand out no state: nothing here runs a request."""

    def state(self, topic: str) -> None:
        return None


def test_the_vault_keys_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_VAULT_KEYS", raising=False)
    with pytest.raises(BadSettings, match=r"PENSTOCK_VAULT_KEYS is required.*penstock vault-key"):
        parse(Settings)


def test_the_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key("k1")
    monkeypatch.setenv("PENSTOCK_VAULT_KEYS", key)
    settings = parse(Settings)
    assert key.split(":")[1] not in repr(settings)
    assert settings.vault_keys.get_secret_value() == key


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PENSTOCK_ANONYMIZE_SCORE_THRESHOLD", "0"),
        ("PENSTOCK_ANONYMIZE_ENTITIES", '["email"]'),
        ("PENSTOCK_ANONYMIZE_MAX_PART_CHARACTERS", "1"),
        ("PENSTOCK_ANONYMIZE_MAX_ENTITY", "5"),
    ],
)
def test_a_bad_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("PENSTOCK_VAULT_KEYS", new_key("k1"))
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as caught:
        parse(Settings)
    assert any(variable in sentence for sentence in caught.value.sentences)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PENSTOCK_ANONYMIZE_ENTITIES", '["EMAIL_ADRESS"]'), ("PENSTOCK_VAULT_KEYS", "k1:QUJD")],
)
def test_what_only_the_start_can_tell_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("PENSTOCK_VAULT_KEYS", new_key("k1"))
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        build(parse(Settings), cast(Any, NoState()))


def test_the_stage_is_built_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_VAULT_KEYS", new_key("k1"))
    monkeypatch.setenv("PENSTOCK_ANONYMIZE_ENTITIES", '["EMAIL_ADDRESS"]')
    assert build(parse(Settings), cast(Any, NoState())).name == "anonymize"
