"""Command groups of other installed packages, by the entry point `penstock.commands`: a `typer.Typer` each.

The package is imported when one of its commands is wanted, so that it costs the other commands nothing.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

GROUP = "penstock.commands"


class Plugin(TyperGroup):
    """One package's commands, under the name of its entry point."""

    def __init__(self, entry: EntryPoint) -> None:
        summary = entry.dist.metadata["Summary"] if entry.dist else f"Commands of {entry.module}."
        super().__init__(name=entry.name, help=summary, no_args_is_help=True)
        self._entry = entry
        # The base class has set an empty dict, which would hide the property below.
        vars(self).pop("commands")

    @cached_property
    def commands(self) -> dict[str, Any]:  # type: ignore[override]  # a plain attribute of the base class
        """The package's commands by name; imports it."""
        group: Any = get_command(self._entry.load())
        found: dict[str, Any] = group.commands
        return found


def plugins(group: str = GROUP) -> dict[str, Any]:
    """The command groups of all installed packages by name."""
    return {entry.name: Plugin(entry) for entry in entry_points(group=group)}
