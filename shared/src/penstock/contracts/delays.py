"""The headers of a record that a stage tries again later: how often it was tried, when it is due, where it stood.

They are appended to the original headers, which stay as they are, so that cutting them off gives the
original record back. Waiting and putting back is the runtime's work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.contracts.events import Source
from penstock.contracts.headers import ATTEMPT, NOT_BEFORE, PLACE_PATTERN, RETRY_CODE, RETRY_OF

Headers = Sequence[tuple[str, bytes | None]]

NAMES: Final = (ATTEMPT, NOT_BEFORE, RETRY_OF, RETRY_CODE)
"""In the order in which they are appended."""
MAX_BYTES: Final = 1_024
"""What they add to a record at most, with the framing of headers, record and batch."""

_DIGITS = re.compile(rb"[0-9]{1,18}")
_PLACE = re.compile(PLACE_PATTERN.removeprefix("^").removesuffix("$").encode())
_CODE = re.compile(rb"[!-~]{1,64}")
_FORMS = (_DIGITS, _DIGITS, _PLACE, _CODE)


@dataclass(frozen=True, slots=True)
class Delayed:
    """What is known of a record that was, or is, waiting."""

    attempts: int
    """Made by this stage so far."""
    not_before_ms: int
    """When it is due, milliseconds since the epoch."""
    retry_of: Source
    """Where the record stood first, the topic as the broker names it."""
    code: str
    """Of the last error."""

    def headers(self) -> list[tuple[str, bytes | None]]:
        """To be appended to the original ones."""
        # what could not be read back would be tried for ever
        code = re.sub(r"[^!-~]", "_", self.code)[:64] or "error"
        values = (str(self.attempts), str(self.not_before_ms), self.retry_of.place, code)
        return [(name, value.encode()) for name, value in zip(NAMES, values, strict=True)]

    @classmethod
    def of(cls, headers: Headers) -> Delayed | None:
        """What the last headers say; None where the record was never delayed."""
        if not headers or headers[-1][0] != RETRY_CODE:
            return None
        tail = headers[-len(NAMES) :]
        if tuple(name for name, _ in tail) != NAMES:
            return None
        values = [value or b"" for _, value in tail]
        if not all(form.fullmatch(value) for form, value in zip(_FORMS, values, strict=True)):
            return None
        topic, partition, offset = values[2].decode().rsplit("/", 2)
        place = Source(topic=topic, partition=int(partition), offset=int(offset))
        return cls(int(values[0]), int(values[1]), place, values[3].decode())


def original(headers: Headers) -> Headers:
    """The headers as they were before the first delay."""
    return headers[: -len(NAMES)] if Delayed.of(headers) is not None else headers
