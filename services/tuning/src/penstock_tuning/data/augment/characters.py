"""Changes of single characters: casing, spacing, leetspeak, homoglyphs, zero-width characters, typing errors.

Every function takes a text and a draw and gives a text. Those in `LENGTH_KEPT` change no offset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

Change = Callable[[str, random.Random], str]

_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_LOOKALIKES = {
    "a": "\u0430",
    "c": "\u0441",
    "e": "\u0435",
    "i": "\u0456",
    "j": "\u0458",
    "o": "\u043e",
    "p": "\u0440",
    "s": "\u0455",
    "x": "\u0445",
    "y": "\u0443",
    "A": "\u0410",
    "B": "\u0412",
    "E": "\u0395",
    "H": "\u041d",
    "I": "\u0399",
    "K": "\u039a",
    "M": "\u041c",
    "N": "\u039d",
    "O": "\u039f",
    "P": "\u03a1",
    "T": "\u03a4",
    "X": "\u03a7",
}
"""Cyrillic and Greek letters that print as Latin ones (Unicode TR 39, confusables)."""
_ZERO_WIDTH = ("\u200b", "\u200c", "\u200d", "\u2060", "\u00ad")
_STYLES = (0x1D5D4, 0x1D670, 0x1D400, 0xFF21)
"""First capital of sans-serif bold, monospace, bold and full-width letters."""


def casing(text: str, draw: random.Random) -> str:
    """All capitals, all small, every word capitalized, or letters in turn."""
    kind = draw.choice(("upper", "lower", "title", "turns"))
    if kind == "turns":
        return "".join(_same_length(letter, index % 2 == 0) for index, letter in enumerate(text))
    if kind == "title":
        return "".join(
            _same_length(letter, index == 0 or not text[index - 1].isalnum()) for index, letter in enumerate(text)
        )
    return "".join(_same_length(letter, kind == "upper") for letter in text)


def lower(text: str, _: random.Random) -> str:
    """All small letters, as people type."""
    return "".join(_same_length(letter, False) for letter in text)


def _same_length(letter: str, upper: bool) -> str:
    changed = letter.upper() if upper else letter.lower()
    return changed if len(changed) == 1 else letter


def leetspeak(text: str, draw: random.Random) -> str:
    """Digits for letters, in a third to all of the places."""
    share = draw.uniform(0.33, 1.0)
    return "".join(letter.translate(_LEET) if draw.random() < share else letter for letter in text)


def homoglyphs(text: str, draw: random.Random) -> str:
    """Look-alike letters of other scripts in a fifth to four fifths of the places."""
    share = draw.uniform(0.2, 0.8)
    return "".join(_LOOKALIKES.get(letter, letter) if draw.random() < share else letter for letter in text)


def styled(text: str, draw: random.Random) -> str:
    """Mathematical or full-width letters for Latin ones."""
    first = draw.choice(_STYLES)
    # Full-width small letters follow their capitals after six signs, mathematical ones at once.
    gap = 32 if first == 0xFF21 else 26
    return "".join(
        chr(first + ord(letter) - 65)
        if "A" <= letter <= "Z"
        else chr(first + gap + ord(letter) - 97)
        if "a" <= letter <= "z"
        else letter
        for letter in text
    )


def spacing(text: str, draw: random.Random) -> str:
    """Letters apart, words together, or odd runs of blanks."""
    kind = draw.choice(("apart", "dashes", "together", "runs"))
    if kind == "apart":
        return "   ".join(" ".join(word) for word in text.split())
    if kind == "dashes":
        return " ".join("-".join(word) for word in text.split())
    if kind == "together":
        return "".join(text.split())
    return "".join(letter * draw.randint(1, 4) if letter == " " else letter for letter in text)


def zero_width(text: str, draw: random.Random) -> str:
    """Invisible characters between the letters, in a tenth to two thirds of the places."""
    share, mark = draw.uniform(0.1, 0.66), draw.choice(_ZERO_WIDTH)
    return "".join(letter + mark if letter.isalpha() and draw.random() < share else letter for letter in text)


def typos(neighbours: Mapping[str, Sequence[str]]) -> Change:
    """A change that types two to eight of a hundred letters wrong: a neighbour, one twice, one left out, two swapped.

    Args:
        neighbours: for a key those beside it.
    """

    def change(text: str, draw: random.Random) -> str:
        rate, letters, at = draw.uniform(0.02, 0.08), list(text), 0
        result: list[str] = []
        while at < len(letters):
            letter = letters[at]
            if letter.isalpha() and draw.random() < rate:
                kind = draw.choice(("neighbour", "twice", "out", "swap"))
                if kind == "neighbour":
                    result.append(_beside(letter, neighbours, draw))
                elif kind == "twice":
                    result += [letter, letter]
                elif kind == "swap" and at + 1 < len(letters):
                    result += [letters[at + 1], letter]
                    at += 1
            else:
                result.append(letter)
            at += 1
        return "".join(result)

    return change


def slips(neighbours: Mapping[str, Sequence[str]]) -> Change:
    """Typing errors that keep every offset: neighbouring keys only."""

    def change(text: str, draw: random.Random) -> str:
        rate = draw.uniform(0.02, 0.08)
        return "".join(
            _beside(letter, neighbours, draw) if letter.isalpha() and draw.random() < rate else letter
            for letter in text
        )

    return change


def _beside(letter: str, neighbours: Mapping[str, Sequence[str]], draw: random.Random) -> str:
    keys = [key for key in neighbours.get(letter.lower(), ()) if key.isalpha() and len(key) == 1]
    if not keys:
        return letter
    key = draw.choice(keys)
    return _same_length(key, True) if letter.isupper() else key


def misspelled(words: Mapping[str, Sequence[str]]) -> Change:
    """A change that writes up to a third of the words that it knows as people misspell them."""

    def change(text: str, draw: random.Random) -> str:
        share = draw.uniform(0.1, 0.33)
        return " ".join(
            draw.choice(words[word]) if word in words and draw.random() < share else word for word in text.split(" ")
        )

    return change
