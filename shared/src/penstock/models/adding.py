"""From a folder, or a model on a hub, to a revision: fetched, converted where that is needed and can be, added."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock.models import convert, storage
from penstock.models.facts import Given
from penstock.models.folders import scan
from penstock.models.manifest import Source
from penstock.models.registry import Added, Registry

if TYPE_CHECKING:
    from penstock.models.hub import Hub

SCHEME: Final = "hub:"
ENDPOINT: Final = "https://huggingface.co"
TOKEN_VARIABLE: Final = "HF_TOKEN"

Bar = Callable[[str, int], AbstractContextManager[storage.Progress]]
"""Shows how something goes on: what it is, and its bytes in all."""


@dataclass(frozen=True, slots=True)
class How:
    """What whoever adds a model wants of it."""

    given: Given = field(default_factory=Given)
    name: str | None = None
    precision: str = "int4"
    """Of the weights, where they are converted."""
    as_is: bool = False
    """Do not convert."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    added: Added
    left_out: tuple[str, ...]
    unconverted: tuple[str, ...] = ()
    """Of a Hugging Face folder that could not be converted: the modules that are not installed."""


def add_folder(registry: Registry, folder: Path, how: How, bar: Bar) -> Result:
    """Add a folder of this machine; raises ModelError."""
    return _add(registry, folder, how, bar, Source(kind="folder", location=str(folder.resolve())))


def add_from_hub(registry: Registry, reference: str, how: How, bar: Bar, hub: Hub) -> Result:
    """Fetch `hub:ORG/NAME[@REV]` and add it; raises ModelError. What was fetched stays until it is added."""
    from penstock.models.hub import download_folder, parse  # noqa: PLC0415  # its client takes 0.1 s to import

    model = hub.look(*parse(reference))
    storage.check_room(registry.root, 2 * model.bytes)  # fetched, then copied
    with download_folder(registry.root, model) as folder:
        with bar(f"fetching {model.repository}", model.bytes) as progress:
            hub.fetch(model, folder, progress)
        source = Source(kind="hub", location=model.repository, revision=model.commit)
        named = How(how.given, how.name or model.name, how.precision, how.as_is)
        result = _add(registry, folder, named, bar, source)
        shutil.rmtree(folder, ignore_errors=True)
    return Result(result.added, model.left_out, result.unconverted)


def _add(registry: Registry, folder: Path, how: How, bar: Bar, source: Source) -> Result:
    scanned = scan(folder)
    name = how.name or folder.resolve().name
    size = sum((folder / file).stat().st_size for file in scanned.files)
    absent = convert.missing() if scanned.format == "safetensors" and not how.as_is else []
    if scanned.format != "safetensors" or how.as_is or absent:
        with bar(f"adding {name}", size) as progress:
            added = registry.add(folder, source=source, given=how.given, name=name, progress=progress)
        return Result(added, scanned.left_out, tuple(absent))
    registry.check_name(name)
    with storage.partial_folder(registry.root) as partial:
        converted = partial / "converted"
        with bar(f"converting {name} to {how.precision}", size):
            made_by = convert.convert(scanned, converted, how.precision)
        added = registry.add(converted, source=source.having(converted_by=made_by), given=how.given, name=name)
    return Result(added, scanned.left_out)
