"""One revision of a model as it lies in the registry, and whether its files are those that were added."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from penstock.models import storage
from penstock.models.aliases import BUILTIN
from penstock.models.digests import sha256_of
from penstock.models.errors import ModelDamaged
from penstock.models.facts import Given, describe
from penstock.models.folders import scan
from penstock.models.manifest import MANIFEST_FILE, Manifest, Source

SUMS_FILE = "SHA256SUMS"
_REPAIR = {True: "install the release again", False: "remove it and add it again"}


@dataclass(frozen=True)
class Entry:
    """One revision, and the folder that a loader opens. That of the embedded model is read when it is asked for."""

    folder: Path
    known: Manifest | None = None

    @property
    def builtin(self) -> bool:
        """Whether it is the embedded model."""
        return self.known is None

    @cached_property
    def manifest(self) -> Manifest:
        """Its facts; raises ModelRefused where the embedded model's folder is not whole."""
        return self.known if self.known is not None else _describe_builtin(self.folder)

    @property
    def reference(self) -> str:
        """What aliases name it by: NAME@REVISION, or `builtin`."""
        return BUILTIN if self.known is None else self.known.reference


def check(entry: Entry) -> None:
    """Raise ModelDamaged where a revision is not as it was added."""
    wrong = problems(entry)
    if wrong:
        raise ModelDamaged(f"{entry.reference}: {wrong[0]}; {_REPAIR[entry.builtin]}")


def problems(entry: Entry, progress: storage.Progress = lambda _: None) -> list[str]:
    """A sentence for each way in which a revision's files are not those that were added."""
    manifest = entry.manifest
    found = []
    if not entry.builtin and entry.folder.parent.name != manifest.revision:
        found.append(f"{MANIFEST_FILE} is not the one that was written: it would be revision {manifest.revision}")
    for file in manifest.files:
        path = entry.folder / file.path
        try:
            digest = sha256_of(path)
        except OSError as error:
            found.append(f"{file.path} cannot be read ({error.strerror})")
        else:
            if digest != file.sha256:
                found.append(f"{file.path} has changed: its SHA-256 is {digest[:12]}..., not {file.sha256[:12]}...")
        progress(file.bytes)
    if entry.builtin:
        return found + _against_sums(entry)
    there = {path.name for path in entry.folder.iterdir()} if entry.folder.is_dir() else set()
    return found + [f"{name} was not added with it" for name in sorted(there - {file.path for file in manifest.files})]


def _against_sums(entry: Entry) -> list[str]:
    """How the embedded model differs from the SHA256SUMS that lie beside it: its manifest is made of what is there."""
    there = {file.path: file.sha256 for file in entry.manifest.files}
    path = entry.folder / SUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        return [f"{SUMS_FILE} cannot be read ({error.strerror})"]
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    return [f"{name} is not the one of {SUMS_FILE}" for name in sorted(listed) if there.get(name) != listed[name]]


def _describe_builtin(folder: Path) -> Manifest:
    scanned = scan(folder)
    digests = {name: sha256_of(folder / name) for name in scanned.files}
    source = Source(kind="builtin", location=str(folder))
    return describe(scanned, folder.resolve().name, digests, source=source, given=Given(), added_ms=0)
