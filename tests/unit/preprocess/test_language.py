"""`penstock_preprocess.language`."""

from __future__ import annotations

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock_preprocess.language import LanguageDetector


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the capital of France?", "en"),
        ("Wie geht es dir heute?", "de"),
        ("Quelle est la capitale de la France ?", "fr"),
        ("¿Cuál es la capital de Francia?", "es"),
        ("Qual è la capitale della Francia?", "it"),
        ("Qual é a capital da França?", "pt"),
        ("日本の首都はどこですか", "ja"),
        ("Jak se dnes máš?", "cs"),
    ],
)
def test_names_the_language(languages: LanguageDetector, text: str, code: str) -> None:
    found = languages.detect(text)
    assert found.code == code
    assert 0.5 <= found.confidence <= 1


@pytest.mark.parametrize("text", ["", "   ", "ok", "123 456 789", "!?", "a1b2"])
def test_too_little_text_is_undetermined(languages: LanguageDetector, text: str) -> None:
    assert languages.detect(text).code == "und"


def test_low_confidence_is_undetermined_and_shown() -> None:
    found = LanguageDetector(("de", "nl"), 1.0).detect("hallo wereld welt")
    assert found.code == "und"
    assert 0 < found.confidence < 1


def test_an_unknown_language_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="PENSTOCK_PREPROCESS_LANGUAGES"):
        LanguageDetector(("en", "qq"), 0.5)


def test_only_the_start_of_a_long_text_is_read(languages: LanguageDetector) -> None:
    assert languages.detect("The weather is fine today. " * 100 + "Das Wetter ist heute gut. " * 9000).code == "en"
