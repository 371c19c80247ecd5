"""One Presidio recognizer over one text, as spans.

Presidio's own loop skips a pattern that runs out of time, and so lets personal data through; this one
raises. It also leaves out the explanation objects, half of the cost. Presidio's loggers can write matched
text, so they are switched off here, before any recognizer is made.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import regex
from presidio_analyzer import PatternRecognizer

from penstock.contracts.errors import StageError

for _name in ("presidio-analyzer", "presidio-anonymizer", "decision_process"):
    logging.getLogger(_name).disabled = True

PATTERN_TIMEOUT_S: Final = 2.0
"""For one pattern over one chunk; a thousand times what one takes."""


@dataclass(frozen=True, slots=True)
class Span:
    """Personal data in a text: character offsets, entity type, and how sure the recognizer is (0 to 1)."""

    start: int
    end: int
    entity: str
    score: float


def touching(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    """Those of `spans`, which are disjoint and in order, that share a character with the place; in logarithmic time."""
    first = bisect_right(spans, start, key=lambda span: span.end)
    return spans[first : bisect_left(spans, end, lo=first, key=lambda span: span.start)]


class Scanner(Protocol):
    """Finds one kind of entity."""

    @property
    def name(self) -> str:
        """The recognizer's name."""
        ...

    @property
    def entity(self) -> str:
        """The entity type it finds."""
        ...

    @property
    def context(self) -> tuple[str, ...]:
        """Words that make a weak finding count when one of them stands before it."""
        ...

    def scan(self, text: str) -> list[Span]:
        """The spans in a text; raises StageError where it cannot finish."""
        ...


class PatternScanner:
    """A `PatternRecognizer`: its patterns, then its checksum or other validation."""

    def __init__(self, recognizer: PatternRecognizer) -> None:
        self._recognizer = cast(Any, recognizer)  # Presidio leaves its attributes unannotated
        self.name = str(self._recognizer.name)
        self.entity = str(self._recognizer.supported_entities[0])
        self.context = tuple(str(word).lower() for word in self._recognizer.context or ())
        self.sources = tuple((str(p.regex), float(p.score)) for p in self._recognizer.patterns)
        flags = regex.DOTALL | regex.MULTILINE | regex.IGNORECASE
        self._patterns = [(regex.compile(source, flags), score) for source, score in self.sources]

    def scan(self, text: str) -> list[Span]:
        """Every match that is not invalid."""
        spans: list[Span] = []
        try:
            for pattern, score in self._patterns:
                for match in pattern.finditer(text, timeout=PATTERN_TIMEOUT_S):
                    span = self._judge(text, match, score)
                    if span is not None:
                        spans.append(span)
        except TimeoutError:
            raise StageError(
                f"recognizer {self.name} did not finish {len(text)} characters in {PATTERN_TIMEOUT_S:.0f} s",
                code="recognizer_timeout",
            ) from None
        return spans

    def _judge(self, text: str, match: Any, score: float) -> Span | None:
        start, end = match.span()
        judged = self._score(text[start:end], score)
        return Span(start, end, self.entity, judged) if judged > 0 else None

    def _score(self, found: str, score: float) -> float:
        """1 where a checksum holds, 0 where it does not or the value is known to be none."""
        if not found:
            return 0.0
        valid = self._recognizer.validate_result(found)
        if valid is not None:
            score = 1.0 if valid else 0.0
        return 0.0 if self._recognizer.invalidate_result(found) else score


class IbanScanner(PatternScanner):
    """The IBAN pattern runs on into the words behind a number: shorten the match until its checksum holds."""

    def _judge(self, text: str, match: Any, score: float) -> Span | None:
        start = match.start()
        for group in range(len(match.groups()), 0, -1):
            end = match.end(group)
            if end <= start:
                continue
            judged = self._score(text[start:end], score)
            if judged > 0:
                return Span(start, end, self.entity, judged)
        return None
