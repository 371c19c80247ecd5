"""The conversation's placeholders: which text has which, numbered by first appearance.

Text that merely looks like one of our placeholders gets one itself, of type `LITERAL`: so it comes back
as it was written, and typing a placeholder never brings out what another turn's stands for.
"""

from __future__ import annotations

import re
from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from penstock.contracts.errors import LimitExceeded
from penstock.text.placeholders import LITERAL, PLACEHOLDER, write
from penstock_anonymize.scanners import Span, touching

CASELESS: Final = frozenset({"EMAIL_ADDRESS"})
SHORTEST_KNOWN: Final = 6
"""Shorter values are not looked for again by themselves: they would hit ordinary words and numbers."""


class PlaceholderBook:
    """One conversation's map, grown by one request.

    `types` are the entity types that new placeholders may name; those of the map stay known, whatever found them.
    """

    def __init__(self, entities: Mapping[str, str], types: Sequence[str], max_entities: int) -> None:
        self._types = frozenset(types) | {LITERAL}
        self._max_entities = max_entities
        self._texts = dict(entities)
        self._numbers: Counter[str] = Counter()
        self._names: dict[tuple[str, str], str] = {}
        self._known: dict[str, str] = {}
        self.used: dict[str, str] = {}
        """The placeholders of this request -> their text."""
        self.grown = False
        """Whether this request added any."""
        for name, text in entities.items():
            match = PLACEHOLDER.fullmatch(name)
            if match is not None:
                self._types |= {match.group(1)}
                self._index(match.group(1), int(match.group(2)), name, text)

    @property
    def entities(self) -> dict[str, str]:
        """The whole conversation's map."""
        return dict(self._texts)

    def literals(self, text: str) -> list[Span]:
        """Where the text already has what looks like one of our placeholders."""
        if "<" not in text:
            return []
        return [
            Span(match.start(), match.end(), LITERAL, 0.0)
            for match in PLACEHOLDER.finditer(text)
            if match.group(1) in self._types
        ]

    def known(self, text: str, found: Sequence[Span]) -> list[Span]:
        """Where texts that have a placeholder stand once more, outside of `found`, which is disjoint and in order."""
        spans: list[Span] = []
        taken = list(found)
        for value, entity in self._known.items():
            if value not in text:
                continue
            for match in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text):
                start, end = match.span()
                if not touching(taken, start, end):
                    spans.append(Span(start, end, entity, 1.0))
                    insort(taken, spans[-1], key=lambda span: span.start)
        return spans

    def placeholder(self, entity: str, text: str) -> str:
        """The placeholder of this text; the same text has the same one. Raises LimitExceeded when the book is full."""
        key = (entity, text.casefold() if entity in CASELESS else text)
        name = self._names.get(key)
        if name is None:
            if len(self._texts) >= self._max_entities:
                raise LimitExceeded(
                    f"messages: more than {self._max_entities} different pieces of personal data in one conversation; "
                    "start another or raise PENSTOCK_ANONYMIZE_MAX_ENTITIES",
                    code="too_many_entities",
                    field="messages",
                    limit=self._max_entities,
                )
            number = self._numbers[entity] + 1
            name = write(entity, number)
            self._texts[name] = text
            self._index(entity, number, name, text)
            self.grown = True
        self.used[name] = self._texts[name]
        return name

    def _index(self, entity: str, number: int, name: str, text: str) -> None:
        self._names.setdefault((entity, text.casefold() if entity in CASELESS else text), name)
        self._numbers[entity] = max(self._numbers[entity], number)
        if entity != LITERAL and len(text) >= SHORTEST_KNOWN:
            self._known.setdefault(text, entity)
