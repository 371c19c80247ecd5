"""`penstock_preprocess.settings`: defaults, and bad values refused by name."""

from __future__ import annotations

import pytest

from penstock.runtime.settings import BadSettings, parse
from penstock_preprocess.settings import Settings


def test_defaults_work_without_an_environment() -> None:
    settings = parse(Settings)
    assert settings.preprocess_max_body_bytes == 1_048_576
    assert settings.preprocess_models == ()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PENSTOCK_PREPROCESS_MAX_BODY_BYTES", "10"),
        ("PENSTOCK_PREPROCESS_MODELS", '[""]'),
        ("PENSTOCK_PREPROCESS_DEFAULT_TENANT", "a b"),
        ("PENSTOCK_PREPROCESS_DEFAULT_MAX_TOKENS", "0"),
        ("PENSTOCK_PREPROCESS_LANGUAGES", '["english"]'),
        ("PENSTOCK_PREPROCESS_LANGUAGE_MIN_CONFIDENCE", "2"),
        ("PENSTOCK_PREPROCESS_MAX_BODY_BYTE", "2000"),
    ],
)
def test_a_bad_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as caught:
        parse(Settings)
    assert any(variable in sentence for sentence in caught.value.sentences)


def test_lists_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PREPROCESS_MODELS", '["a", "b"]')
    assert parse(Settings).preprocess_models == ("a", "b")
