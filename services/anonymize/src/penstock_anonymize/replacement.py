"""Writing placeholders into a text with Presidio's anonymizer and an operator of our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from presidio_anonymizer import AnonymizerEngine
from presidio_anonymizer.entities import OperatorConfig, RecognizerResult
from presidio_anonymizer.operators import Operator, OperatorType

from penstock_anonymize.book import PlaceholderBook
from penstock_anonymize.scanners import Span

PIECE_SPANS: Final = 64
"""Spans to one call of the engine, which copies its text once for each."""


class Placeholder(Operator):
    """Replaces an entity by its placeholder in the conversation's book."""

    def operate(self, text: str, params: dict[str, Any] | None = None) -> str:
        """The placeholder of `text`."""
        given = params or {}
        book: PlaceholderBook = given["book"]
        return book.placeholder(given["entity_type"], text)

    def validate(self, params: dict[str, Any] | None = None) -> None:
        """Nothing: `Replacer` alone calls it."""

    def operator_name(self) -> str:
        """Its name in Presidio's registry."""
        return "placeholder"

    def operator_type(self) -> OperatorType:
        """Anonymizes; restoring is one pass over the text and needs no operator."""
        return OperatorType.Anonymize


class Replacer:
    """Puts placeholders in place of spans."""

    def __init__(self) -> None:
        self._engine = AnonymizerEngine()  # type: ignore[no-untyped-call]  # Presidio leaves it unannotated
        self._engine.add_anonymizer(Placeholder)

    def replace(self, text: str, spans: Sequence[Span], book: PlaceholderBook) -> str:
        """The text with every span replaced. Spans are disjoint and in order, and the book knows their texts."""
        if not spans:
            return text
        operators = {"DEFAULT": OperatorConfig("placeholder", {"book": book})}
        return "".join(self._piece(piece, inside, operators) for piece, inside in _pieces(text, spans))

    def _piece(self, text: str, spans: Sequence[Span], operators: dict[str, OperatorConfig]) -> str:
        results = [RecognizerResult(span.entity, span.start, span.end, span.score) for span in spans]
        # spans side by side stay two: each is a value of its own
        result = self._engine.anonymize(text, results, operators, merge_entities_with_spaces=False)
        return str(result.text)


def _pieces(text: str, spans: Sequence[Span]) -> Iterator[tuple[str, list[Span]]]:
    start = 0
    for first in range(0, len(spans), PIECE_SPANS):
        inside = spans[first : first + PIECE_SPANS]
        end = inside[-1].end if first + PIECE_SPANS < len(spans) else len(text)
        yield text[start:end], [Span(s.start - start, s.end - start, s.entity, s.score) for s in inside]
        start = end
