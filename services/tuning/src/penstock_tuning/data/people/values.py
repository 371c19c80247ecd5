"""What fills a template: names, places, firms, addresses, dates and numbers of one language and one split.

A value is on one side of the split by its own hash, whatever list it comes from: a first name, surname, street, city
or firm of the test never occurs in generated training text.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from penstock_tuning.data.errors import SourceMissingError
from penstock_tuning.data.manifest import Manifest
from penstock_tuning.data.people import checksums
from penstock_tuning.data.readers.base import read_text, table
from penstock_tuning.data.similar import words

_PATTERN = re.compile(r"\{(\d)\}")
_SLOT = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"[^\W\d_][\w' .-]*")
_LIST_CAP = 4000
_TENTHS = {"test": (0, 1), "validation": (2,), "train": tuple(range(3, 10))}


def side(value: str) -> str:
    """The split that a value belongs to: two tenths test, one validation, by a hash of its letters."""
    tenth = int(hashlib.sha256(value.strip().lower().encode()).hexdigest()[:8], 16) % 10
    return next(split for split, tenths in _TENTHS.items() if tenth in tenths)


@dataclass(frozen=True)
class Lists:
    """The values of one language on one side of the split."""

    language: str
    pack: Mapping[str, Any]
    first: Sequence[str]
    last: Sequence[str]
    cities: Sequence[str]
    stems: Sequence[str]
    nouns: Sequence[str]


def position_side(values: Sequence[str], split: str) -> list[str]:
    """Of a short list every tenth from the fourth and the eighth is test, every tenth from the sixth validation."""
    places = {"test": (3, 7), "validation": (5,), "train": (0, 1, 2, 4, 6, 8, 9)}[split]
    return [value for index, value in enumerate(values) if index % 10 in places]


def pack(language: str) -> Mapping[str, Any]:
    """The templates and lists that come with this package."""
    text = (resources.files("penstock_tuning.data.people") / f"{language}.yaml").read_text("utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def lists(language: str, split: str, manifest: Manifest, root: Path, known: AbstractSet[str] = frozenset()) -> Lists:
    """Collect the values of a language: the package's own and those of the name lists of the data folder.

    Names of people with a word in `known` (lower case) are left out.

    Raises:
        SourceMissingError: the manifest has no such list, or the data folder not its file.
    """
    own = pack(language)
    first, last = own["first"], own["last"]
    if (given := manifest.sources.get(f"first_names_{language}")) is not None:
        first = [*first, *_names(read_text(given.paths(root)[0]).split("\n"))]
    last = [*last, *_names(read_text(_source(manifest, f"surnames_{language}").paths(root)[0]).split("\n"))]
    cities = [
        row["name"]
        for path in _source(manifest, "world_cities").paths(root)
        for row in table(path)
        if row["country"] in own["countries"] and _NAME.fullmatch(row["name"])
    ]

    def mine(values: Iterable[str]) -> list[str]:
        return sorted({value for value in values if side(value) == split})

    return Lists(
        language=language,
        pack=own,
        first=[name for name in mine(first) if known.isdisjoint(words(name))],
        last=[name for name in mine(last) if known.isdisjoint(words(name))],
        cities=mine(cities),
        stems=mine(own["stems"]),
        nouns=mine(own["nouns"]),
    )


def _source(manifest: Manifest, name: str) -> Any:
    if name not in manifest.sources:
        raise SourceMissingError(f"the manifest has no source {name}, which text with names is generated from")
    return manifest.sources[name]


def _names(lines: Iterable[str]) -> list[str]:
    found = [line.strip() for line in lines if 3 <= len(line.strip()) <= 20 and _NAME.fullmatch(line.strip())]
    # Long lists are thinned evenly: their order says how frequent a name is in some and nothing in others.
    return found[:: max(1, len(found) // _LIST_CAP)]


class Values:
    """Draws values; a slot of a template is a name of `SLOTS`."""

    def __init__(self, held: Lists, draw: random.Random) -> None:
        self._held = held
        self._draw = draw
        self._pick = draw.choice

    def person(self) -> str:
        """First and last name, now and then with a middle initial, the last first, or in capitals."""
        first, last = self._pick(self._held.first), self._pick(self._held.last)
        form = self._draw.random()
        if form < 0.06:
            return f"{first} {self._pick('ABCDEFGHJKLMPRST')}. {last}"
        if form < 0.12:
            return f"{last}, {first}"
        if form < 0.15:
            return f"{first} {last}".upper()
        return f"{first} {last}"

    def company(self) -> str:
        """A firm, office, hospital or school, some of them named after a person or a city."""
        return self._fill(self._pick(self._held.pack["companies"]))

    def address(self) -> str:
        """A street with number, mostly with a postcode and city."""
        street = self._fill(self._pick(self._held.pack["streets"]))
        return self._fill(self._pick(self._held.pack["addresses"]), street=street)

    def _fill(self, layout: str, **given: str) -> str:
        makers: dict[str, Callable[[], str]] = {
            "last": lambda: self._pick(self._held.last),
            "noun": lambda: self._pick(self._held.nouns),
            "city": lambda: self._pick(self._held.cities),
            "stem": lambda: self._pick(self._held.stems),
            "n": lambda: str(self._draw.randint(1, 240)),
            "state": lambda: self._pick(self._held.pack["states"]),
            "zip5": lambda: str(self._draw.randint(10_000, 98_999)),
            "zip4": lambda: str(self._draw.randint(1000, 4999)),
            "zip3": lambda: checksums.digits(self._draw, 3),
            "ukpost": lambda: (
                f"{self._pick(('SW', 'EC', 'LS', 'EH', 'BS'))}{self._draw.randint(1, 20)} "
                f"{self._draw.randint(1, 9)}{self._pick('ABDEFGH')}{self._pick('JLNPQRS')}"
            ),
        }
        return _SLOT.sub(lambda match: given[match[1]] if match[1] in given else makers[match[1]](), layout)

    def date(self, first_year: int, last_year: int) -> str:
        """A date in one of the language's ways of writing."""
        day, month = self._draw.randint(1, 28), self._draw.randint(1, 12)
        parts = {
            "d": str(day),
            "dd": f"{day:02d}",
            "m": str(month),
            "mm": f"{month:02d}",
            "y": str(self._draw.randint(first_year, last_year)),
            "month": self._held.pack["months"][month - 1],
        }
        return _SLOT.sub(lambda match: parts[match[1]], self._pick(self._held.pack["dates"]))

    def phone(self) -> str:
        """A telephone number in one of the country's layouts: `{3}` is three digits."""
        layout = self._pick(self._held.pack["phones"])
        return _PATTERN.sub(lambda match: checksums.digits(self._draw, int(match[1])), layout)

    def email(self) -> str:
        """An address at a reserved domain, of a name that need not be in the text."""
        name = re.sub(r"[^a-z.]", "", f"{self._pick(self._held.first)}.{self._pick(self._held.last)}".lower())
        return f"{name.strip('.') or 'office'}@example.{self._pick(('com', 'org', 'net'))}"

    def slot(self, name: str) -> tuple[str, str, str]:
        """For a slot: what stands before the span, the text of the span, and its label (empty: no span)."""
        if name == "TITLED":
            return f"{self._pick(self._held.pack['titles'])} ", self._pick(self._held.last), "PERSON"
        text, label = {
            "PERSON": (self.person, "PERSON"),
            "FIRST": (lambda: self._pick(self._held.first), "PERSON"),
            "LAST": (lambda: self._pick(self._held.last), "PERSON"),
            "LOCATION": (lambda: self._pick(self._held.cities), "LOCATION"),
            "ORGANIZATION": (self.company, "ORGANIZATION"),
            "ADDRESS": (self.address, "ADDRESS"),
            "DATE_OF_BIRTH": (lambda: self.date(1930, 2015), "DATE_OF_BIRTH"),
            "DATE": (lambda: self.date(1990, 2030), ""),
            "PHONE": (self.phone, ""),
            "EMAIL": (self.email, ""),
            "NUMBER": (lambda: str(self._draw.randint(1000, 9_999_999)), ""),
            "IBAN": (lambda: checksums.iban(self._draw, self._held.pack["iban"]), ""),
            "CARD": (lambda: checksums.card(self._draw), ""),
            "SSN": (lambda: checksums.american_ssn(self._draw), ""),
            "TAX": (lambda: checksums.german_tax_id(self._draw), ""),
            "NIR": (lambda: checksums.french_nir(self._draw), ""),
            "DNI": (lambda: checksums.spanish_dni(self._draw), ""),
            "NIF": (lambda: checksums.portuguese_nif(self._draw), ""),
        }[name]
        return "", text(), label
