"""`aliases.json`: which revision each alias points at, what it pointed at before, and who changed it when.

One file, replaced whole: a service that reads it sees the state before a change or after it. The registry checks what
is promoted; here are names alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from penstock.contracts.base import Contract
from penstock.models import storage
from penstock.models.errors import ModelError, ModelRefused
from penstock.models.manifest import NAME_PATTERN, REVISION_DIGITS

ALIASES_FILE = "aliases.json"
CHAMPION: Final = "champion"
BUILTIN: Final = "builtin"
"""The reference of the embedded model, whose revision changes with the release."""
PATTERN: Final = r"[a-z][a-z0-9-]{0,62}"
_MOST_BEFORE = 100
_MOST_CHANGES = 1_000

Reference = Annotated[str, StringConstraints(pattern=rf"^({BUILTIN}|{NAME_PATTERN}@[0-9a-f]{{{REVISION_DIGITS}}})$")]


class Alias(Contract):
    """Where an alias points: references, NAME@REVISION or `builtin`."""

    current: Reference
    before: tuple[Reference, ...] = ()
    """What `rollback` goes back to, the newest last."""


class Change(Contract):
    """One promotion or rollback."""

    at_ms: int
    action: Literal["promote", "rollback"]
    alias: str
    was: str | None
    now: str


class Aliases(Contract):
    """The whole file."""

    version: Literal[1] = 1
    aliases: dict[str, Alias] = Field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    """The oldest first; no more than the last thousand."""

    @classmethod
    def load(cls, root: Path) -> Aliases:
        """The file of a registry; without one, no alias was ever promoted. Raises ModelError."""
        path = root / ALIASES_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise ModelError(f"cannot read {path} ({error.strerror})") from None
        except ValidationError as error:
            raise ModelError(
                f"{path} is no alias file of this release ({error.error_count()} fields do not fit); restore it from a "
                "backup, or remove it: the built-in model serves then, and aliases are promoted again"
            ) from None

    def save(self, root: Path) -> None:
        """Replace the file."""
        storage.write_whole(root / ALIASES_FILE, self.model_dump_json(indent=2) + "\n")

    def current(self, alias: str) -> str | None:
        """Where it points; `champion` at the embedded model until another is promoted, others nowhere."""
        found = self.aliases.get(alias)
        return found.current if found is not None else (BUILTIN if alias == CHAMPION else None)

    def promoted(self, alias: str, reference: str, now_ms: int) -> Aliases:
        """With an alias at a reference."""
        was = self.current(alias)
        before = self.aliases[alias].before if alias in self.aliases else ()
        if was is not None and was != reference:
            before = (*before, was)
        return self._changed(
            alias,
            Alias(current=reference, before=before[-_MOST_BEFORE:]),
            Change(at_ms=now_ms, action="promote", alias=alias, was=was, now=reference),
        )

    def rolled_back(self, alias: str, now_ms: int) -> Aliases:
        """With an alias at what it pointed at before; raises ModelRefused where that is nothing."""
        found = self.aliases.get(alias)
        if found is None or not found.before:
            raise ModelRefused(f"{alias} pointed at nothing before: promote the revision that should serve")
        *before, now = found.before
        change = Change(at_ms=now_ms, action="rollback", alias=alias, was=found.current, now=now)
        return self._changed(alias, Alias(current=now, before=tuple(before)), change)

    def forgotten(self, reference: str) -> Aliases:
        """Without a revision among what rollbacks go back to, and without aliases that point at it."""
        kept = {
            name: alias.having(before=tuple(one for one in alias.before if one != reference))
            for name, alias in self.aliases.items()
            if alias.current != reference
        }
        return self.having(aliases=kept)

    def _changed(self, name: str, alias: Alias, change: Change) -> Aliases:
        return self.having(aliases={**self.aliases, name: alias}, changes=(*self.changes, change)[-_MOST_CHANGES:])


def check_alias(alias: str) -> None:
    """Raise ModelRefused where a name can be no alias."""
    if re.fullmatch(PATTERN, alias) is None or alias == BUILTIN:
        raise ModelRefused(f"{alias!r} can be no alias: lower-case letters, digits and hyphens, not {BUILTIN!r}")
