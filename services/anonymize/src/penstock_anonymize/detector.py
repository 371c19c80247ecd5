"""A text to the places of personal data in it: Presidio's recognizers, without spaCy and without waste, and a model.

A text is folded to ASCII digits, signs and spaces of the same length, cut into overlapping chunks, and
shown to those scanners whose conditions it meets. Weak findings count only where one of the recognizer's
context words stands shortly before them, by the rule of Presidio's context enhancer. Overlapping findings
become one, so that no end of any of them stays behind. It writes nothing: that is `replacement`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Final

from penstock.contracts.errors import PenstockError, StageError
from penstock_anonymize.names import Names, apart
from penstock_anonymize.recognizers import ENTITIES, Entry, Roster, digest, rosters
from penstock_anonymize.scanners import Span, touching

DEFAULT_THRESHOLD: Final = 0.4
CHUNK_CHARACTERS: Final = 4_000
OVERLAP_CHARACTERS: Final = 400
CONTEXT_WORDS: Final = 6
CONTEXT_CHARACTERS: Final = 120
CONTEXT_GAIN: Final = 0.35
CONTEXT_FLOOR: Final = 0.4

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")
_SPACE = re.compile(r"\s")
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_FOLD: Final[dict[int, str]] = {
    **{code: str(unicodedata.digit(chr(code))) for code in range(0x80, 0x1FFFF) if chr(code).isdecimal()},
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, _DASHES), "-"),
    **dict.fromkeys(map(ord, _SPACES), " "),
}


class Detector:
    """Finds personal data. `entities` limits it to some types, None looks for all; `names` finds what has no form."""

    def __init__(
        self,
        threshold: float = DEFAULT_THRESHOLD,
        entities: Sequence[str] | None = None,
        names: Names | None = None,
    ) -> None:
        self._threshold = threshold
        self._rosters = rosters(entities)
        self._names = names
        self.types = (*ENTITIES, *(names.types if names else ()))
        """Every entity type that a placeholder may have."""
        found_by = f"presidio-analyzer/{version('presidio-analyzer')} phonenumbers/{version('phonenumbers')}"
        self.version = f"{found_by} {digest(ENTITIES if entities is None else entities, threshold)}"
        if names:
            self.version += f" {names.version}"

    def detect(self, text: str, language: str | None = None, taken: Sequence[Span] = ()) -> list[Span]:
        """Disjoint spans in order. An unknown language runs the recognizers of all of them.

        A name ends where one of `taken` begins, disjoint places in order that are something else. Raises StageError
        where a recognizer fails, RetriableError where the model does: a text that could not be searched is never taken
        for clean.
        """
        found = self._forms(text, language)
        if self._names is None:
            return found
        # a name within a page's or mail's address tells nothing that hiding the address does not hide
        names = [name for name in apart(self._names.find(text), taken, text) if not _within(name, found)]
        return merge([*found, *names]) if names else found

    def _forms(self, text: str, language: str | None) -> list[Span]:
        roster = self._rosters.get(language) or self._rosters[None]
        folded = text if text.isascii() else text.translate(_FOLD)
        spans: list[Span] = []
        for start, end in _chunks(folded):
            for span in self._scan(folded[start:end], roster):
                last = span.end + start
                if last == end < len(text):  # cut off by the chunk: what runs on belongs to it
                    last = _run_end(folded, end)
                spans.append(Span(span.start + start, last, span.entity, span.score))
        return merge(spans)

    def _scan(self, chunk: str, roster: Roster) -> list[Span]:
        digits = len(_DIGIT.findall(chunk))
        spans: list[Span] = []
        for entry in roster.patterns:
            if digits >= entry.digits and (entry.needs is None or entry.needs.search(chunk)):
                spans += self._run(entry, chunk)
        if roster.phone is not None and digits >= roster.phone.digits:
            spans += self._run(roster.phone, _without(chunk, spans))
        return spans

    def _run(self, entry: Entry, chunk: str) -> list[Span]:
        """One scanner's findings that are sure enough, or that one of its words before them makes so."""
        if entry.weak and (entry.words is None or not entry.words.search(chunk)):
            return []
        try:
            found = entry.scanner.scan(chunk)
        except PenstockError:
            raise
        except Exception as error:  # noqa: BLE001  # a recognizer's bug; its message may quote the text
            raise StageError(
                f"recognizer {entry.scanner.name} failed ({type(error).__name__})", code="recognizer_failed"
            ) from None
        return [span for span in found if self._counts(span, entry, chunk)]

    def _counts(self, span: Span, entry: Entry, chunk: str) -> bool:
        if span.score >= self._threshold:
            return True
        raised = max(span.score + CONTEXT_GAIN, CONTEXT_FLOOR)
        return (
            raised >= self._threshold
            and entry.words is not None
            and bool(entry.words.search(_words_before(chunk, span.start)))
        )


def _within(span: Span, others: Sequence[Span]) -> bool:
    return any(other.start <= span.start and span.end <= other.end for other in touching(others, span.start, span.end))


def _words_before(chunk: str, position: int) -> str:
    window = chunk[max(0, position - CONTEXT_CHARACTERS) : position]
    starts = [match.start() for match in _WORD.finditer(window)]
    return window[starts[-CONTEXT_WORDS] :] if len(starts) > CONTEXT_WORDS else window


def _without(chunk: str, spans: Sequence[Span]) -> str:
    """The chunk with `spans` blanked out, the same length; digits behind a plus sign stay for the phone scanner."""
    for span in spans:
        if chunk[max(0, span.start - 1) : span.start] == "+":
            continue
        chunk = f"{chunk[: span.start]}{'x' * (span.end - span.start)}{chunk[span.end :]}"
    return chunk


def merge(spans: Sequence[Span]) -> list[Span]:
    """One span for each group that overlaps, from its first start to its last end, of its surest type."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if merged and span.start < merged[-1].end:
            first = merged[-1]
            surest = max(first, span, key=lambda s: (s.score, s.end - s.start))
            merged[-1] = Span(first.start, max(first.end, span.end), surest.entity, surest.score)
        else:
            merged.append(span)
    return merged


def _chunks(text: str) -> Iterator[tuple[int, int]]:
    """Overlapping pieces, cut at white space where there is some near."""
    start = 0
    while True:
        end = start + CHUNK_CHARACTERS
        if end >= len(text):
            yield start, len(text)
            return
        space = _SPACE.search(text, end, end + CHUNK_CHARACTERS)
        end = space.start() if space else end
        yield start, end
        following = end - OVERLAP_CHARACTERS
        before = max(text.rfind(sign, start + 1, following) for sign in " \n\t")
        start = before + 1 if before >= following - OVERLAP_CHARACTERS else following


def _run_end(text: str, position: int) -> int:
    space = _SPACE.search(text, position)
    return space.start() if space else len(text)
