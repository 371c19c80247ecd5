"""The language of a prompt: py3langid, offline, over a fixed set of languages.

py3langid (BSD-3-Clause, 4.5 MB, naive Bayes over byte n-grams; Lui and Baldwin, ACL 2012) answers in under
0.2 ms. Restricting it to the languages served is what makes short prompts come out right. It does not
split a text of several languages: the likeliest one is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from py3langid.langid import (  # type: ignore[import-untyped]  # it ships no annotations
    MODEL_FILE,
    LanguageIdentifier,
)

from penstock.contracts.errors import ConfigurationError
from penstock.contracts.events import Language

UNDETERMINED: Final = "und"
SCANNED_CHARACTERS: Final = 2_000
SHORTEST_LETTERS: Final = 4


class LanguageDetector:
    """Names the language of a text. Raises ConfigurationError where it does not know a language asked for."""

    def __init__(self, languages: Sequence[str], min_confidence: float) -> None:
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._min_confidence = min_confidence
        try:
            self._identifier.set_languages(list(languages) or None)
        except ValueError as error:
            raise ConfigurationError(
                f"PENSTOCK_PREPROCESS_LANGUAGES: {error}; known are {', '.join(sorted(self._identifier.labels))}"
            ) from None
        self.version = f"py3langid/{version('py3langid')}"

    def detect(self, text: str) -> Language:
        """ISO 639-1 code and confidence of the first 2,000 characters; `und` where they are too few or unclear."""
        start = text[:SCANNED_CHARACTERS]
        if sum(map(str.isalpha, start)) < SHORTEST_LETTERS:
            return Language(code=UNDETERMINED, confidence=0.0)
        code, confidence = self._identifier.classify(start)
        rounded = round(min(1.0, max(0.0, float(confidence))), 3)
        return Language(code=code if rounded >= self._min_confidence else UNDETERMINED, confidence=rounded)
