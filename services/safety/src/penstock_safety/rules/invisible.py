"""Characters a reader cannot see: bidirectional overrides, tag characters, zero-width characters inside words.

Preprocess removes them; what is found here came another way (a retrieved text, a model's answer) or was missed.
Joiners where a script or an emoji needs them are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock_safety.detector import Finding, digest_of

LABEL = "invisible_text"
RELEASE = "1"

# Flags of England, Scotland and Wales are a black flag followed by tag characters.
_RULES: tuple[tuple[float, re.Pattern[str]], ...] = (
    (0.95, re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+")),
    (0.95, re.compile("\U0001f3f4[\U000e0020-\U000e007e]{8,}")),
    (0.9, re.compile("[\U000e0100-\U000e01ef]{2,}|[\ufe00-\ufe0f]{3,}")),
    (0.85, re.compile("[\u202a-\u202e\u2066-\u2069]+")),
    (0.6, re.compile("(?<=[A-Za-z])[\u00ad\u200b\u2060-\u2064\ufeff]+(?=[A-Za-z])")),
    (0.85, re.compile("[\u200b-\u200d\u2060-\u2064\ufeff]{4,}")),
)


class InvisibleText:
    """Implements `Detector`."""

    name = "invisible_text"
    labels = frozenset({LABEL})

    def __init__(self) -> None:
        self.digest = digest_of((self.name, RELEASE, *(f"{score}{rule.pattern}" for score, rule in _RULES)))

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        """One list of findings per window."""
        return [self._scan(window) for window in windows]

    def _scan(self, text: str) -> list[Finding]:
        if text.isascii():
            return []
        return [
            Finding(LABEL, score, match.start(), match.end(), self.name)
            for score, rule in _RULES
            for match in rule.finditer(text)
        ]
