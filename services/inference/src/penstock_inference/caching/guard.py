"""What two messages must have in common before their likeness counts: numbers, placeholders, names, negations.

Embeddings place "refund order 17" beside "refund order 71", and "is it safe" beside "is it not safe". What is read
off here is compared as it stands, in order. It errs towards a difference, which costs a generation and no more: a
word that opens a sentence counts as a name unless it is one that often does.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.text.placeholders import PLACEHOLDER


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBER: Final = re.compile(r"\d+(?:[.,:/-]\d+)*")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_ENDS: Final = re.compile(r"[.!?:;\n\u2026\u3002]\W*\Z")
_NEGATIONS: Final = _words(
    "no not never none nothing nobody nowhere neither nor without cannot except "
    "nicht kein keine keinen keinem keiner nie niemals ohne nichts "
    "ne pas jamais sans aucun aucune rien ni "
    "sin nunca nada ningún ninguna ninguno tampoco jamás "
    "non mai senza nessun nessuno nessuna niente "
    "não sem nenhum nenhuma"
)
_NUMERALS: Final = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half "
    "double twice first second third fourth fifth last next"
)
_OPENERS: Final = _words(
    "a about after all am an and any are as at be because before but by can could did do does don't during explain "
    "find for from get give has have help hey hi hello how i i'd i'll i'm i've if in is isn't it its it's list let "
    "make may me might my need of on or our out please show since should so some tell that the their then there these "
    "they this those to under until up us was we were what what's whats when where which while who who's whom whose "
    "why will with would write you your"
)

Guard = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], int]


def guard_of(text: str) -> Guard:
    """Numbers, placeholders and names in order, and how many words negate."""
    placeholders = tuple(match.group() for match in PLACEHOLDER.finditer(text))
    plain = PLACEHOLDER.sub(" ", text)
    numbers: list[str] = [match.group() for match in _NUMBER.finditer(plain)]
    names: list[str] = []
    negations = 0
    for match in _WORD.finditer(plain):
        word = match.group()
        folded = word.casefold().replace("\u2019", "'")
        if folded in _NEGATIONS or folded.endswith("n't"):
            negations += 1
        elif folded in _NUMERALS:
            numbers.append(folded)
        elif word != word.lower() and not _may_open(folded, plain[: match.start()], word):
            names.append(folded)
    return tuple(numbers), placeholders, tuple(names), negations


def _may_open(folded: str, before: str, word: str) -> bool:
    """Whether a word with capitals is one that begins a sentence, or the English I."""
    if folded == "i" or folded.startswith("i'"):
        return True
    begins = not before.strip() or _ENDS.search(before[-8:]) is not None
    return begins and folded in _OPENERS and word[1:] == word[1:].lower()
