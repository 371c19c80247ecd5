"""Telephone numbers: by shape, and by the numbering plans of phonenumbers (Google's libphonenumber).

Presidio runs eight numbering plans over the whole text, two thirds of its time. Here they see only runs
of digits long enough to be a number, and the first plan that takes one ends the search. A number written
the way people write telephone numbers counts even where no plan assigns it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import phonenumbers

from penstock_anonymize.scanners import Span

ENTITY: Final = "PHONE_NUMBER"
INTERNATIONAL: Final = 1.0
"""With a plus sign: surer than the checksum of any number of digits alone."""
BY_SHAPE: Final = 0.5
BY_PLAN: Final = 0.4
WITH_CONTEXT: Final = 0.1
"""Digits that may be a number: counts only with a word such as `phone` before it."""
FEWEST_DIGITS: Final = 7
LONGEST_RUN: Final = 48
"""Characters of a run that are shown to the plans whole; of a longer one its words are, each by itself."""

CONTEXT: Final = (
    *("phone", "number", "telephone", "cell", "mobile", "call", "fax", "whatsapp", "tel", "telefon", "handy"),
    *("mobil", "rufnummer", "téléphone", "portable", "teléfono", "móvil", "celular", "cellulare", "telefono"),
    *("telefone", "telemóvel", "numéro", "número", "numero", "nummer"),
)
_SHAPES = tuple(
    (re.compile(pattern), score)
    for score, pattern in (
        (INTERNATIONAL, r"(?<![\w+])\+\(?[1-9](?:[ ().\-/]{0,3}\d){6,14}(?!\d)"),
        (BY_SHAPE, r"(?<![\w.+-])00[1-9](?:[ ().\-/]{0,3}\d){7,14}(?!\w)"),
        (BY_SHAPE, r"(?<![\w.-])(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\w|[.-]\d)"),
        (BY_SHAPE, r"(?<![\w.,/-])\(?0[1-9]\d{0,4}\)?[ /-]{1,3}\d{2,4}(?:[ -]?\d{2,4}){1,4}(?!\w|[.,/-]\d)"),
    )
)
_DATE_OR_TIME = re.compile(
    r"(?<![\d./-])(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(?![./-]?\d)"
    r"|(?<!\d)\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?(?!\d)"
)
_RUN = re.compile(r"(?<!\w)[+(]?\d(?:[ ().\-/]{0,3}\d){6,}(?!\w)")
_WORD = re.compile(r"\S+")
_CONTEXT_RUN = re.compile(r"(?<![\w.,-])\(?\d(?:[ ()\-/]{0,2}\d){6,14}(?!\w|[.,-]\d)")


class PhoneScanner:
    """Telephone numbers of the given regions (ISO 3166-1), and international ones."""

    name = "Phone"
    entity = ENTITY
    context = CONTEXT

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = tuple(regions)

    def scan(self, text: str) -> list[Span]:
        """Numbers by shape, then by plan, then what only a context word can confirm."""
        text = _DATE_OR_TIME.sub(lambda match: "x" * len(match.group()), text)
        spans = [
            Span(match.start(), match.end(), ENTITY, score)
            for shape, score in _SHAPES
            for match in shape.finditer(text)
            if sum(map(str.isdigit, match.group())) > FEWEST_DIGITS
        ]
        for start, run in _runs(text):
            if not any(span.start <= start and start + len(run) <= span.end for span in spans):
                spans += self._by_plan(run, start)
        covered = list(spans)
        for match in _CONTEXT_RUN.finditer(text):
            if not any(span.start < match.end() and match.start() < span.end for span in covered):
                spans.append(Span(match.start(), match.end(), ENTITY, WITH_CONTEXT))
        return spans

    def _by_plan(self, run: str, offset: int) -> list[Span]:
        for region in self._regions:
            found = [
                Span(offset + match.start, offset + match.end, ENTITY, BY_PLAN)
                for match in phonenumbers.PhoneNumberMatcher(run, region, leniency=phonenumbers.Leniency.VALID)
            ]
            if found:
                return found
        return []


def _runs(text: str) -> Iterator[tuple[int, str]]:
    """Where numbering plans are asked, bounded: a plan's search is quadratic in the length of what it gets."""
    for match in _RUN.finditer(text):
        if len(match.group()) <= LONGEST_RUN:
            yield match.start(), match.group()
            continue
        for word in _WORD.finditer(match.group()):
            if FEWEST_DIGITS <= len(word.group()) <= LONGEST_RUN:
                yield match.start() + word.start(), word.group()
