"""The registry that the `models` commands work on, and how an entry is shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.options import progress_bar
from penstock.cli.state import StateFolder
from penstock.local.errors import ProjectRootError
from penstock.local.root import project_root
from penstock.models.aliases import Aliases
from penstock.models.entries import Entry
from penstock.models.manifest import Licence
from penstock.models.registry import EMBEDDED, Registry

MODELS_DIR_VARIABLE = "PENSTOCK_MODELS_DIR"

ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        envvar=MODELS_DIR_VARIABLE,
        metavar="DIR",
        help="The registry's folder, as the services have it; without it, the local stack's.",
    ),
]
Reference = Annotated[str, typer.Argument(metavar="MODEL", help="NAME, NAME@REVISION, an alias, or `builtin`.")]


def models_dir(given: Path | None) -> Path:
    """The registry's folder: as given, else `models` in the local stack's state folder."""
    return given.expanduser().resolve() if given is not None else StateFolder.configured().path / "models"


def configured_models_dir() -> str:
    """The registry's folder for the services of the local stack."""
    named = os.environ.get(MODELS_DIR_VARIABLE)
    return str(models_dir(Path(named) if named else None))


def open_registry(given: Path | None) -> Registry:
    """The registry and the embedded model beside it."""
    try:
        embedded = project_root() / EMBEDDED
    except ProjectRootError:
        embedded = EMBEDDED.resolve()  # as in an image, whose working folder has it
    return Registry(models_dir(given), embedded)


@contextmanager
def byte_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on terminals; the function takes how many bytes more are done."""
    done = 0
    with progress_bar(what, total, unit="bytes") as show:

        def progress(count: int) -> None:
            nonlocal done
            done += count
            show(done, None)

        yield progress


def aliases_of(entry: Entry, aliases: Aliases) -> list[str]:
    """The aliases that point at an entry."""
    return [name for name in sorted({*aliases.aliases, "champion"}) if aliases.current(name) == entry.reference]


def as_dict(entry: Entry, aliases: Aliases) -> dict[str, Any]:
    """An entry for programs."""
    return {
        "reference": entry.manifest.reference,
        "revision": entry.manifest.revision,
        "builtin": entry.builtin,
        "aliases": aliases_of(entry, aliases),
        "folder": str(entry.folder),
        "bytes": entry.manifest.bytes,
        **entry.manifest.model_dump(mode="json"),
    }


def licence_line(licence: Licence) -> str:
    """`apache-2.0`, `llama3.1 (restricts use)`."""
    return f"{licence.id} (restricts use)" if licence.restrictions else licence.id


def size(count: int) -> str:
    """`11.9 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def moment(ms: int) -> str:
    """`2026-11-21 16:44`, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M") if ms else ""
