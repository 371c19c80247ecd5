"""The composition root: the shipped policy and detectors fit, and bad settings are refused by name."""

from pathlib import Path

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock.runtime.settings import BadSettings, parse
from penstock_safety.app import build
from penstock_safety.settings import Settings


def test_the_shipped_policy_and_detectors_fit() -> None:
    stage = build(Settings())
    assert stage.name == "safety"
    assert stage.versions["policy"].startswith("1@")


def test_a_policy_that_names_an_unknown_detector_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("version: '1'\ndetectors: [psychic]\nrules: {prompt: {}, response: {}}\n")
    with pytest.raises(ConfigurationError, match="psychic"):
        build(Settings(safety_policy=file))


def test_a_missing_model_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="abusive-language model"):
        build(Settings(safety_abuse_model=tmp_path))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PENSTOCK_SAFETY_WINDOW_CHARS", "12"),
        ("PENSTOCK_SAFETY_WINDOW_OVERLAP_CHARS", "5000"),
        ("PENSTOCK_SAFETY_TIMEOUT_S", "0"),
        ("PENSTOCK_SAFETY_THREADS", "many"),
    ],
)
def test_a_bad_setting_is_refused_with_a_sentence_that_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as caught:
        parse(Settings)
    assert any(variable in sentence for sentence in caught.value.sentences)
