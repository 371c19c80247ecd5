"""Pairs for entailment made from pairs: a sentence of the evidence follows from it, the same with one fact changed
does not. English.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from penstock_tuning.data.example import Example

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)")
_VERB = re.compile(r"\b(is|are|was|were|has|have|had|can|could|will|would|should|does|do|did)\b(?! not|n't)")
_NOT = re.compile(r"\b(is|are|was|were|can|could|will|would|should|does|do|did) not ")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_OPPOSITES = {
    "increase": "decrease",
    "increased": "decreased",
    "more": "less",
    "higher": "lower",
    "before": "after",
    "first": "last",
    "always": "never",
    "best": "worst",
    "large": "small",
    "old": "new",
    "early": "late",
    "all": "none of the",
    "win": "lose",
    "won": "lost",
    "hot": "cold",
    "open": "closed",
    "same": "opposite",
    "above": "below",
}
_OPPOSITE = re.compile(rf"\b({'|'.join([*_OPPOSITES, *_OPPOSITES.values()])})\b")
_SWAPPED = {**_OPPOSITES, **{second: first for first, second in _OPPOSITES.items()}}


def pairs(examples: Sequence[Example], seed: int) -> Iterator[Example]:
    """Of every entailed response one that is changed; of every longer evidence a sentence, as it is and changed."""
    names = sorted({name for row in examples for name in _NAME.findall(row.text)})
    for example in examples:
        draw = random.Random(f"{seed}:{example.source}:{example.text}")
        if example.pair is None or example.language != "en":
            continue
        if example.labels.get("entailed") == 1:
            yield from _changed(example, example.text, names, draw)
        sentences = [part for part in _SENTENCE.split(example.pair) if 6 <= len(part.split()) <= 40]
        if len(sentences) > 1 and draw.random() < 0.5:
            chosen = draw.choice(sentences)
            yield replace(example, text=chosen, labels={"entailed": 1}, augmented="copied")
            yield from _changed(example, chosen, names, draw)


def _changed(example: Example, text: str, names: Sequence[str], draw: random.Random) -> Iterator[Example]:
    ways = ("number", "negation", "opposite", "name")
    for name in draw.sample(ways, len(ways)):
        found = altered(text, name, names, draw)
        if found is not None and found != text:
            yield replace(example, text=found, labels={"entailed": 0}, augmented=name)
            return


def altered(text: str, way: str, names: Sequence[str], draw: random.Random) -> str | None:
    """The text with one `number`, `negation`, `opposite` or `name` changed; None where it has none."""
    if way == "number":
        return _one(_NUMBER, text, draw, lambda found: _other_number(found, draw))
    if way == "negation":
        without = _one(_NOT, text, draw, lambda found: found.replace(" not", ""))
        return without or _one(_VERB, text, draw, lambda found: f"{found} not")
    if way == "opposite":
        return _one(_OPPOSITE, text, draw, lambda found: _SWAPPED[found])
    return _one(_NAME, text, draw, lambda _: draw.choice(names)) if names else None


def _other_number(found: str, draw: random.Random) -> str:
    if "." in found:
        return f"{float(found) + draw.choice((-1, 1)) * draw.uniform(0.5, 3):.{len(found.partition('.')[2])}f}"
    return str(max(0, int(found) + draw.choice((-1, 1)) * draw.randint(1, max(2, int(found) // 3))))


def _one(pattern: re.Pattern[str], text: str, draw: random.Random, change: Callable[[str], str]) -> str | None:
    places = list(pattern.finditer(text))
    if not places:
        return None
    place = draw.choice(places)
    return f"{text[: place.start()]}{change(place[0])}{text[place.end() :]}"
