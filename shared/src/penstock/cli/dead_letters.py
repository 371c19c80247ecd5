"""Dead letters as `dlq` shows them: the reason from the header, the original record as it stood."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from penstock.cli.errors import CommandError, NotFound
from penstock.cli.reading import Progress, Read, scan, tail
from penstock.cli.target import Target
from penstock.contracts.claims import Claim
from penstock.contracts.headers import DEAD_LETTER, REDRIVEN
from penstock.contracts.results import DeadLetter, Redriven
from penstock.contracts.topics import DEAD_LETTERS
from penstock.runtime.claims import has_claim
from penstock.runtime.kafka import Names

_PLACE = re.compile(r"^(\d{1,9}):(\d{1,18})$")


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `value` is the original record's, restricted; None where that was a tombstone."""

    partition: int
    offset: int
    metadata: DeadLetter
    value: bytes | None
    header_names: tuple[str, ...]
    redriven: tuple[Redriven, ...] = ()
    """Each time it was sent again, oldest first."""
    claim: Claim | None = None
    """Where the original's value was kept in the claim store; `value` is then the claim."""

    @property
    def bytes(self) -> int | None:
        """Of the original's value; None where that was a tombstone."""
        if self.claim is not None:
            return self.claim.bytes
        return None if self.value is None else len(self.value)

    @property
    def place(self) -> str:
        """`PARTITION:OFFSET` on llm.dead-letters."""
        return f"{self.partition}:{self.offset}"

    def described(self) -> dict[str, Any]:
        """All but the bytes, for programs."""
        return {
            "place": self.place,
            **self.metadata.model_dump(mode="json", exclude_none=True),
            "headers": list(self.header_names),
            "bytes": self.bytes,
            "claim": None if self.claim is None else self.claim.model_dump(mode="json"),
            "redriven": [mark.model_dump(mode="json") for mark in self.redriven],
        }


def letter_of(record: Read) -> Letter:
    """The letter in a record; raises CommandError where it carries no readable reason."""
    try:
        metadata = DeadLetter.model_validate_json(record.header(DEAD_LETTER) or b"")
    except ValidationError:
        raise CommandError(
            f"llm.dead-letters {record.partition}:{record.offset} has no {DEAD_LETTER} header of this release; "
            "upgrade this command, or find out what else writes there"
        ) from None
    names = tuple(name for name, _ in record.headers if name != DEAD_LETTER)
    return Letter(record.partition, record.offset, metadata, record.value, names, claim=_claim(record))


def _claim(record: Read) -> Claim | None:
    """The claim in a letter; None where there is none, or one that is wrong, which is why some letters are letters."""
    if not has_claim(record.headers):
        return None
    try:
        return Claim.model_validate_json(record.value or b"")
    except ValidationError:
        return None


def source_of(letter: Letter, prefix: str) -> str:
    """The declared name of the topic that the letter's record was read from."""
    return Names(prefix).plain(letter.metadata.source.topic)


def body_of(letter: Letter, target: Target) -> bytes | None:
    """The original's value, fetched where the record holds a claim; raises what `Claims.fetch` does."""
    if letter.claim is None:
        return letter.value
    return target.claims.fetch(source_of(letter, target.prefix), letter.claim)


def is_letter(record: Read) -> bool:
    """False for a marker, which says of a letter that it was sent again."""
    # an original record may have brought a `redriven` header of its own
    return record.header(DEAD_LETTER) is not None or record.header(REDRIVEN) is None


def mark_of(record: Read) -> Redriven:
    """What a marker says; raises CommandError where it cannot be read."""
    try:
        return Redriven.model_validate_json(record.header(REDRIVEN) or b"")
    except ValidationError:
        raise CommandError(
            f"llm.dead-letters {record.partition}:{record.offset} has a {REDRIVEN} header of another form; "
            "upgrade this command, or find out what else writes there"
        ) from None


class Marks:
    """The markers met so far, by the place of the letter they are about."""

    def __init__(self) -> None:
        self._of: dict[str, list[Redriven]] = {}

    def letters(self, records: Iterable[Read]) -> Iterator[Read]:
        """The records that are letters; markers are taken in on the way."""
        for record in records:
            if is_letter(record):
                yield record
            else:
                mark = mark_of(record)
                self._of.setdefault(mark.dead_letter.replace("/", ":"), []).append(mark)

    def of(self, place: str) -> tuple[Redriven, ...]:
        """Of the letter at `PARTITION:OFFSET`, oldest first; complete once everything was read."""
        return tuple(self._of.get(place, ()))


def newest_letters(
    target: Target, limit: int, *, takes: Callable[[Letter], bool], progress: Progress | None = None
) -> list[Letter]:
    """The last `limit` letters that are meant, oldest first."""

    def counted(record: Read) -> bool:
        return is_letter(record) and takes(letter_of(record))

    marks = Marks()
    records = tail(target, DEAD_LETTERS, limit, counted=counted, progress=progress)
    letters = [letter for record in marks.letters(records) if takes(letter := letter_of(record))][-limit:]
    return [replace(letter, redriven=marks.of(letter.place)) for letter in letters]


def place_of(which: str) -> str | None:
    """`PARTITION:OFFSET` without leading zeros; None where it has another form."""
    place = _PLACE.match(which)
    return f"{int(place[1])}:{int(place[2])}" if place is not None else None


def find(target: Target, which: str, *, progress: Progress | None = None) -> list[Letter]:
    """The letters of a request id, or the one at PARTITION:OFFSET; raises NotFound."""
    at = place_of(which)
    marks = Marks()
    letters = (letter_of(record) for record in marks.letters(scan(target, DEAD_LETTERS, progress=progress)))
    # a request id may have the form of a place
    found = [letter for letter in letters if letter.metadata.request_id == which or letter.place == at]
    if not found:
        raise no_letter(target, which)
    return [replace(letter, redriven=marks.of(letter.place)) for letter in found]


def no_letter(target: Target, which: str) -> NotFound:
    """The error where nothing has this id or place."""
    return NotFound(f"no dead letter {which} on {target.topic(DEAD_LETTERS)}; `penstock dlq list` shows what there is")
