"""Typed placeholders such as `<EMAIL_ADDRESS_1>`: writing one, finding them, putting back what they stand for.

Which text becomes a placeholder is decided by anonymize; the map travels in the vault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

PLACEHOLDER: Final = re.compile(r"<([A-Z][A-Z0-9_]{0,63})_([1-9][0-9]{0,8})>")
"""A placeholder: its entity type and its number. Never spans another one, since it holds no angle bracket."""

_BEGINNING: Final = re.compile(r"<(?:[A-Z][A-Z0-9_]{0,73})?\Z")

LITERAL: Final = "LITERAL"
"""The type under which text that merely looks like a placeholder is kept, so that it comes back as it was."""


def write(entity: str, number: int) -> str:
    """The placeholder of the `number`-th value of its type in a conversation."""
    return f"<{entity}_{number}>"


def restore(text: str, entities: Mapping[str, str]) -> tuple[str, int]:
    """Put back what the placeholders in `text` stand for, and how many places that were.

    One pass: a restored value is never read again, so a value that looks like a placeholder stays as it is.
    Placeholders that `entities` does not know are left alone.
    """
    restored = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal restored
        value = entities.get(match.group())
        if value is None:
            return match.group()
        restored += 1
        return value

    return PLACEHOLDER.sub(replace, text), restored


def without_beginning(text: str) -> str:
    """The text without what may be the beginning of a placeholder at its end."""
    beginning = _BEGINNING.search(text)
    return text[: beginning.start()] if beginning else text
