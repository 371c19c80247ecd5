"""A question's twin: one number, name or negation changed, and with it the meaning. Every hit on one is wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Literal

Kind = Literal["number", "name", "negation"]
KINDS: tuple[Kind, ...] = ("number", "name", "negation")
_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}")
_VERB = re.compile(r"\b(is|are|was|were|can|could|should|will|would|did|does|do)\b ", re.IGNORECASE)
_NAMES = ("Lindqvist", "Okafor", "Marseille", "Uruguay", "Tamagawa", "Brandenburg", "Castillo", "Iverson")


def twins(texts: Iterable[str]) -> dict[Kind, list[tuple[str, str]]]:
    """Questions and their twins, by what was changed."""
    draw = random.Random(0)
    found: dict[Kind, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for text in texts:
        if _NUMBER.search(text):
            found["number"].append((text, _NUMBER.sub(lambda match: str(int(match.group()) + 1), text, count=1)))
        if _NAME.search(text):
            name = draw.choice(_NAMES)
            found["name"].append((text, _NAME.sub(name, text, count=1)))
        if _VERB.search(text) and "not" not in text.lower().split():
            found["negation"].append((text, _VERB.sub(r"\1 not ", text, count=1)))
    return found
