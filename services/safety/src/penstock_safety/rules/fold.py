"""Folds text for phrase rules: case, accents, look-alike letters, invisible characters, leetspeak, spelling out.

Every view keeps a map back to the original offsets. It does not decide what a phrase means.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

# Cyrillic and Greek letters that look like Latin ones (Unicode TR 39, the part that occurs in practice).
_LOOK_ALIKE = dict(
    zip(
        "аеорсухіјѕԁһӏвкмнтгαεορτυικνχβηϲ",
        "aeopcyxijsdhlbkmhtraeoptuiknxbhc",
        strict=True,
    )
)
_LEET = str.maketrans("013457@$!|", "oieastasii")
_LEET_WORD = re.compile(r"[a-z][013457@$!|]+[a-z]|\b[013457@$!|][a-z]{2}")
_SPELLED = re.compile(r"(?<!\w)\w(?:[ .\-_*|/,]{1,3}\w(?!\w)){4,200}")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff\u0300-\u036f]"
)


class _Table(dict[int, str]):
    """Code point to one folded character, filled as characters are met."""

    def __missing__(self, point: int) -> str:
        plain = unicodedata.normalize("NFKD", chr(point)).lower()
        first = next((c for c in plain if not unicodedata.combining(c)), " ")
        folded = _LOOK_ALIKE.get(first, first)
        self[point] = folded
        return folded


_TABLE = _Table()


@dataclass(frozen=True, slots=True)
class View:
    """Folded text; `offsets[i]` is where its character i stood, None where it stands where it stood."""

    text: str
    offsets: tuple[int, ...] | None
    squeezed: bool = False
    """Spelled-out words have been joined: gaps between words may be missing."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Offsets in the original of a match in this view."""
        if self.offsets is None:
            return start, end
        return self.offsets[start], self.offsets[end - 1] + 1


def views(text: str) -> Iterator[View]:
    """The plain folding first, then the others where they differ from it."""
    offsets: tuple[int, ...] | None = None
    visible = text
    if not text.isascii() and _INVISIBLE.search(text):
        kept = [index for index, char in enumerate(text) if not _INVISIBLE.match(char)]
        visible = "".join(text[index] for index in kept)
        offsets = tuple(kept)
    plain = visible.lower() if visible.isascii() else visible.translate(_TABLE)
    yield View(plain, offsets)
    if _LEET_WORD.search(plain):
        yield View(plain.translate(_LEET), offsets)
    squeezed, left = _squeeze(plain)
    if left is not None:
        where = tuple(left) if offsets is None else tuple(offsets[index] for index in left)
        yield View(squeezed.translate(_LEET), where, squeezed=True)


def _squeeze(text: str) -> tuple[str, list[int] | None]:
    """Joins runs of single letters ("i g n o r e") and returns what was kept; None where there is no run."""
    kept: list[int] = []
    done = 0
    for match in _SPELLED.finditer(text):
        kept.extend(range(done, match.start()))
        kept.extend(index for index in range(match.start(), match.end()) if text[index].isalnum())
        done = match.end()
    if done == 0:
        return text, None
    kept.extend(range(done, len(text)))
    return "".join(text[index] for index in kept), kept
