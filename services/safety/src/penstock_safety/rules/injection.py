"""Known prompt-injection and jailbreak phrasing, whatever its case, accents, look-alikes, leetspeak or spacing.

It sees phrases, not intent: rewording escapes it, which is what trained detectors are for.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock_safety.detector import Finding, digest_of
from penstock_safety.rules.fold import views
from penstock_safety.rules.phrases import phrases, source

LABEL = "injection"
RELEASE = "1"


class InjectionPhrases:
    """Implements `Detector`. A span with several weak phrases near it scores higher than each alone."""

    name = "injection_phrases"
    labels = frozenset({LABEL})

    def __init__(self) -> None:
        self._phrases = phrases()
        self.digest = digest_of((self.name, RELEASE, source()))

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        """One list of findings per window."""
        return [self.scan(window) for window in windows]

    def scan(self, text: str) -> list[Finding]:
        """The findings of one text, at most one per rule and place."""
        found: dict[tuple[str, int, int], float] = {}
        for view in views(text):
            for phrase in self._phrases:
                pattern = phrase.squeezed if view.squeezed else phrase.pattern
                for match in pattern.finditer(view.text):
                    if match.end() == match.start():
                        continue
                    start, end = view.span(match.start(), match.end())
                    found[(phrase.name, start, end)] = phrase.score
        raise_by = _corroboration({rule for rule, _, _ in found})
        return [
            Finding(LABEL, min(0.99, round(score + raise_by, 3)), start, end, self.name)
            for (_, start, end), score in found.items()
        ]


def _corroboration(rules: set[str]) -> float:
    """Each further distinct rule in the same window adds 0.06, up to 0.18."""
    return min(0.18, 0.06 * max(0, len(rules) - 1))
