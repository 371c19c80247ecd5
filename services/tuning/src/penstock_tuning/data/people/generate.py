"""Examples for the task `pii` from templates: exact spans, every label complete, and texts without any name."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from penstock.heads.spans import Span
from penstock_tuning.data.example import LANGUAGES, PII, Example
from penstock_tuning.data.manifest import Manifest
from penstock_tuning.data.people.values import Values, lists, position_side
from penstock_tuning.data.readers.base import read_text

SOURCE = "generated_names"
COUNTS = {"train": 3000, "validation": 200, "test": 500}
"""Texts for each language."""
_SLOT = re.compile(r"\{([A-Z_]+)\}")
_WITHOUT_NAMES = 0.15
_SEVERAL = 0.3
_FOREIGN = {
    "person": "{PERSON}",
    "name": "{PERSON}",
    "name_male": "{PERSON}",
    "name_female": "{PERSON}",
    "first_name": "{FIRST}",
    "first_name_male": "{FIRST}",
    "first_name_female": "{FIRST}",
    "last_name": "{LAST}",
    "city": "{LOCATION}",
    "address": "{ADDRESS}",
    "organization": "{ORGANIZATION}",
    "date_of_birth": "{DATE_OF_BIRTH}",
    "date_time": "{DATE}",
    "phone_number": "{PHONE}",
    "email": "{EMAIL}",
    "iban": "{IBAN}",
    "credit_card_number": "{CARD}",
    "ssn": "{SSN}",
}
"""Slots of the English templates of the data folder that have a counterpart here; others leave a template out."""


def generate(
    split: str, seed: int, manifest: Manifest, root: Path, known: AbstractSet[str] = frozenset()
) -> Iterator[Example]:
    """Texts of all six languages for one side of the split; templates, too, are on one side only.

    No name has a word in `known` (lower case).

    Raises:
        SourceMissingError: a name list is not in the data folder.
    """
    for language in LANGUAGES:
        draw = random.Random(f"{seed}:{SOURCE}:{language}:{split}")
        held = lists(language, split, manifest, root, known)
        values = Values(held, draw)
        named = position_side(held.pack["templates"], split)
        if language == "en" and split == "train":
            named += foreign_templates(manifest, root)
        empty = position_side(held.pack["none"], split)
        for _ in range(COUNTS[split]):
            chosen = [draw.choice(empty if draw.random() < _WITHOUT_NAMES else named)]
            while draw.random() < _SEVERAL and len(chosen) < 4:
                chosen.append(draw.choice(empty if draw.random() < _WITHOUT_NAMES else named))
            yield fill(chosen, values, language, draw.choice((" ", "\n", "\n\n")))


def fill(templates: Sequence[str], values: Values, language: str, between: str) -> Example:
    """One text of some templates with values in their slots."""
    text, spans = "", []
    for number, template in enumerate(templates):
        text += between if number else ""
        at = 0
        for match in _SLOT.finditer(template):
            text += template[at : match.start()]
            before, value, label = values.slot(match[1])
            text += before
            if label:
                spans.append(Span(len(text), len(text) + len(value), label))
            text += value
            at = match.end()
        text += template[at:]
    return Example(
        text=text,
        source=SOURCE,
        kind="generated",
        language=language,
        spans=tuple(spans),
        covers=PII,
        template=f"{language}:{templates[0][:40]}",
    )


def foreign_templates(manifest: Manifest, root: Path) -> list[str]:
    """The English templates of the data folder of which every slot has a counterpart."""
    source = manifest.sources.get("name_templates")
    found = []
    for path in source.paths(root) if source else ():
        for line in read_text(path).replace("\ufffd", "-").split("\n"):
            slots = re.findall(r"\{\{\s*(\w+)\s*\}\}", line)
            if slots and all(slot in _FOREIGN for slot in slots):
                found.append(re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: _FOREIGN[match[1]], line).strip())
    return found
