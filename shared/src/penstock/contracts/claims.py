"""The claim check: what stands in a record whose value is kept in a store.

Such a record has the header `claim`; its value is a `Claim` instead of the message that its topic carries. All
other headers are as ever, so that routing never needs the object. Storing and fetching are the runtime's work.
Pattern: Hohpe and Woolf, Enterprise Integration Patterns (2003), "Claim Check".
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from penstock.contracts.base import Message

CLAIM: Final = "claim"
"""The header; its value is the schema of the record's value, `penstock.claim/VERSION`."""

OBJECT_PATTERN: Final = r"^(open|restricted)/llm(\.[a-z][a-z-]*)+/[0-9]{8}/[0-9a-f]{64}$"
"""`CLASS/TOPIC/YYYYMMDD/SHA-256`: the topic without its prefix, the day (UTC) on which it was stored."""

_OBJECT = re.compile(OBJECT_PATTERN.removesuffix("$"))


class Claim(Message):
    """What a record whose value is kept in the store holds instead: where it is, its length and its digest."""

    schema_name: ClassVar[str] = "penstock.claim"

    object: Annotated[str, StringConstraints(pattern=OBJECT_PATTERN)]
    """Name within the store."""
    bytes: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def object_name(folder: str, day: str, sha256: str) -> str:
    """The name of an object; `day` is YYYYMMDD.

    Names are given anew each day, so that collecting old objects never meets one that is being stored again.
    """
    return f"{folder}/{day}/{sha256}"


def topic_of_object(name: str) -> str | None:
    """The declared topic whose value an object holds; None where the name is none of ours."""
    return name.split("/")[1] if _OBJECT.fullmatch(name) else None
