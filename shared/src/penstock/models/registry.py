"""The registry: a folder in which each revision of each model has a folder of its own.

    MODELS_DIR/
        aliases.json                 where aliases point (`aliases`)
        revisions/NAME/REVISION/     manifest.json, and files/ for what a loader opens
        .partial/                    what is being added, or was when a process died
        .lock

A revision is put in place by one rename when all of it is written, and never changed. Files of equal content in
several revisions are hard links to one. The embedded model is the first entry, wherever its folder lies; it can be
neither removed nor changed. Writers hold the lock; readers need none.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from penstock.models import storage
from penstock.models.adapters import scan_adapter
from penstock.models.aliases import BUILTIN, CHAMPION, Aliases, check_alias
from penstock.models.digests import sha256_of
from penstock.models.entries import Entry, check
from penstock.models.errors import ModelDamaged, ModelError, ModelRefused, NoSuchModel
from penstock.models.facts import Base, Given, describe
from penstock.models.folders import ModelFolder, scan
from penstock.models.manifest import MANIFEST_FILE, NAME_PATTERN, REVISION_DIGITS, Manifest, Source

EMBEDDED = Path("deploy/models/penstock-lm")
"""Of the embedded model, from the top of a checkout or an image's working folder."""
REVISIONS = "revisions"
FILES = "files"
_LEAST_DIGITS = 4
_STALE_S = 7 * 86_400.0
_REVISION = re.compile(rf"[0-9a-f]{{{_LEAST_DIGITS},{REVISION_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Added:
    """What came of adding a folder."""

    entry: Entry
    new: bool
    """False where this very revision was there."""


class Registry:
    """The models of one folder, and the embedded one. Methods raise ModelError."""

    def __init__(self, root: Path, builtin: Path) -> None:
        """`builtin` is the folder of the embedded model; neither folder need exist yet."""
        self.root = root
        self._builtin = builtin

    # --- finding

    def entries(self) -> list[Entry]:
        """The embedded model, then all others by name, the newest revision first."""
        added = sorted(self._added(), key=lambda entry: (entry.manifest.name, -entry.manifest.added_ms))
        return [*([Entry(self._builtin)] if self._builtin.is_dir() else []), *added]

    def aliases(self) -> Aliases:
        """Where aliases point now."""
        return Aliases.load(self.root)

    def find(self, reference: str) -> Entry:
        """An alias, `builtin`, NAME@REVISION (its first four digits may do), or NAME for its newest revision."""
        target = self.aliases().current(reference)
        if target is not None:
            return self._pointed_at(reference, target)
        if reference == BUILTIN:
            return Entry(self._builtin)
        name, at, revision = reference.partition("@")
        if at and re.fullmatch(NAME_PATTERN, name) and re.fullmatch(rf"[0-9a-f]{{{REVISION_DIGITS}}}", revision):
            exact = self._read(self._place(name, revision))
            if exact is not None:
                return exact
        return self._search(reference, name, revision if at else None)

    def _pointed_at(self, alias: str, target: str) -> Entry:
        if target == BUILTIN:
            return Entry(self._builtin)
        entry = self._read(self._place(*target.split("@", 1)))
        if entry is None:
            raise NoSuchModel(
                f"{alias} points at {target}, which is not in {self.root}; add it again, or promote another"
            )
        return entry

    def _search(self, reference: str, name: str, revision: str | None) -> Entry:
        found = [entry for entry in self.entries() if entry.manifest.name == name]
        if revision is not None:
            if _REVISION.fullmatch(revision) is None:
                raise NoSuchModel(
                    f"{reference!r}: a revision is {_LEAST_DIGITS} to {REVISION_DIGITS} hexadecimal digits"
                )
            found = [entry for entry in found if entry.manifest.revision.startswith(revision)]
            if len(found) > 1:
                raise NoSuchModel(f"{reference!r} may be {' or '.join(entry.manifest.reference for entry in found)}")
        if not found:
            raise NoSuchModel(f"no model {reference!r} in {self.root}; see `penstock models list`")
        return max(found, key=lambda entry: entry.manifest.added_ms)

    def adapters(self, answers: str | None) -> dict[str, Entry]:
        """The adapters that requests may name, of a model of these `answers`: alias -> revision."""
        found = {}
        for alias, pointing in self.aliases().aliases.items():
            if not self._is_adapter(pointing.current.partition("@")[0]):
                continue
            entry = self._pointed_at(alias, pointing.current)
            if entry.manifest.adapter is not None and entry.manifest.adapter.base_answers == answers:
                found[alias] = entry
        return found

    def name_of(self, reference: str) -> str | None:
        """The model's name in a reference as aliases have it; None where the embedded model is not whole."""
        if reference != BUILTIN:
            return reference.partition("@")[0]
        return self._builtin.resolve().name if self._builtin.is_dir() else None

    def check_name(self, name: str, *, adapter: bool = False) -> None:
        """Raise ModelRefused where a name can be no model's here, or no adapter's."""
        if re.fullmatch(NAME_PATTERN, name) is None:
            raise ModelRefused(
                f"{name!r} can be no model's name: letters, digits, `.`, `_` and `-`; give one with --name"
            )
        pointing = self.aliases().current(name)
        if name == BUILTIN or (pointing is not None and not (adapter and pointing.startswith(f"{name}@"))):
            raise ModelRefused(f"{name!r} is an alias; give the model another name with --name")
        if self._named(name) and self._is_adapter(name) != adapter:
            raise ModelRefused(f"{name!r} is {'a model' if adapter else 'an adapter'}; take another name with --name")

    # --- changing

    def add(
        self,
        folder: Path,
        *,
        source: Source,
        given: Given | None = None,
        name: str | None = None,
        adapter_of: str | None = None,
        progress: storage.Progress = lambda _: None,
    ) -> Added:
        """Copy a folder in as a new revision of `name` (the folder's where absent); the same twice changes nothing.

        `adapter_of` names the model that a folder with an adapter belongs to.
        """
        base = self._base(adapter_of) if adapter_of is not None else None
        scanned = scan(folder) if base is None else scan_adapter(folder)
        name = name or folder.resolve().name
        self.check_name(name, adapter=base is not None)
        storage.check_room(self.root, sum((folder / file).stat().st_size for file in scanned.files))
        self._sweep()
        with storage.partial_folder(self.root) as partial:
            copied = partial / FILES
            copied.mkdir()
            try:
                digests = {file: storage.copy(folder / file, copied / file, progress) for file in scanned.files}
            except OSError as error:
                raise ModelError(f"{folder} cannot be copied into {self.root} ({error.strerror})") from None
            manifest = describe(
                ModelFolder(copied, scanned.format, scanned.files, scanned.left_out),
                name,
                digests,
                source=source,
                given=given or Given(),
                added_ms=time.time_ns() // 1_000_000,
                base=base,
            )
            storage.write_whole(partial / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
            with storage.locked(self.root):
                return self._put_in_place(partial, manifest)

    def _base(self, reference: str) -> Base:
        entry = self.find(reference)
        return Base(entry.folder, entry.manifest)

    def _put_in_place(self, partial: Path, manifest: Manifest) -> Added:
        self.check_name(manifest.name, adapter=manifest.adapter is not None)
        place = self._place(manifest.name, manifest.revision)
        there = self._read(place)
        if there is not None:
            return Added(there, new=False)
        same = {
            (file.sha256, file.bytes): entry.folder / file.path
            for entry in self._added()
            for file in entry.manifest.files
        }
        for file in manifest.files:
            known = same.get((file.sha256, file.bytes))
            # what was damaged meanwhile must not spread
            if known is not None and known.is_file() and sha256_of(known) == file.sha256:
                storage.link_instead(known, partial / FILES / file.path)
        storage.sync_folder(partial / FILES)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(place)
        storage.sync_folder(place.parent)
        return Added(Entry(place / FILES, manifest), new=True)

    def promote(self, reference: str, alias: str | None = None) -> Entry:
        """Point an alias at a revision whose files are whole and of a format that is served.

        Without one it is `champion`, and for an adapter its own name, by which requests ask for it.
        """
        with storage.locked(self.root):
            # an adapter's own name means its newest revision here, not the one that it points at
            entry = self._search(reference, reference, None) if self._is_adapter(reference) else self.find(reference)
            adapter = entry.manifest.adapter is not None
            alias = self.alias_of(entry) if alias is None else alias
            if not (adapter and alias == entry.manifest.name):
                check_alias(alias)
                if (self.root / REVISIONS / alias).exists():
                    raise ModelRefused(f"{alias!r} is a model's name: take another alias")
            self._check_kind(alias, adapter=adapter)
            if entry.manifest.vectors is not None:
                raise ModelRefused(
                    f"{entry.manifest.reference} is an encoder, which answers nothing: settings such as "
                    "PENSTOCK_INFERENCE_CACHE_ENCODER name it as it is"
                )
            if entry.manifest.answers is None:
                raise ModelRefused(
                    f"{entry.manifest.reference} is a Hugging Face folder, which the inference service cannot run; "
                    "install penstock[convert] and add it again"
                )
            check(entry)
            self.aliases().promoted(alias, entry.reference, time.time_ns() // 1_000_000).save(self.root)
        return entry

    def alias_of(self, entry: Entry) -> str:
        """What a promotion points at it where it names no alias."""
        return entry.manifest.name if not entry.builtin and entry.manifest.adapter is not None else CHAMPION

    def _check_kind(self, alias: str, *, adapter: bool) -> None:
        """Raise ModelRefused where an alias of models would point at an adapter, or the reverse."""
        current = self.aliases().current(alias)
        if current is not None and self._is_adapter(current.partition("@")[0]) != adapter:
            raise ModelRefused(
                f"{alias!r} points at {current}, {'a model' if adapter else 'an adapter'}: take another alias for "
                f"{'an adapter' if adapter else 'a model'}"
            )

    def rollback(self, alias: str = CHAMPION) -> Entry:
        """Point an alias at what it pointed at before its last promotion."""
        with storage.locked(self.root):
            changed = self.aliases().rolled_back(alias, time.time_ns() // 1_000_000)
            entry = self._pointed_at(alias, changed.aliases[alias].current)
            check(entry)
            changed.save(self.root)
        return entry

    def remove(self, reference: str) -> Entry:
        """Delete a revision that no alias points at; rollbacks go past it.

        An alias of an adapter that pointed at nothing before goes with it: nothing is left to serve under that name.
        """
        with storage.locked(self.root):
            entry = self.find(reference)
            if entry.builtin:
                raise ModelRefused("the built-in model is part of the release and cannot be removed")
            aliases = self.aliases()
            adapter = entry.manifest.adapter is not None
            pointing = sorted(
                name
                for name, alias in aliases.aliases.items()
                if alias.current == entry.reference and not (adapter and not alias.before)
            )
            if pointing:
                raise ModelRefused(
                    f"{entry.reference} is {' and '.join(pointing)}: promote another first, or roll back"
                )
            depending = [one.reference for one in self._added() if _belongs(one, entry)]
            if depending:
                raise ModelRefused(f"{depending[0]} is an adapter of {entry.reference}: remove it first")
            aliases.forgotten(entry.reference).save(self.root)
            place = entry.folder.parent
            with storage.partial_folder(self.root) as partial:
                place.rename(partial / "removed")
                if not any(place.parent.iterdir()):
                    place.parent.rmdir()
        return entry

    # --- within

    def _named(self, name: str) -> list[Entry]:
        found = (self._read(place) for place in (self.root / REVISIONS / name).glob("*"))
        return [entry for entry in found if entry is not None]

    def _is_adapter(self, name: str) -> bool:
        """Whether it is an adapter's name: all revisions of a name are of one kind."""
        return re.fullmatch(NAME_PATTERN, name) is not None and any(
            entry.manifest.adapter is not None for entry in self._named(name)
        )

    def _place(self, name: str, revision: str) -> Path:
        return self.root / REVISIONS / name / revision

    def _added(self) -> Iterator[Entry]:
        for place in sorted((self.root / REVISIONS).glob("*/*")):
            entry = self._read(place)
            if entry is not None:
                yield entry

    def _read(self, place: Path) -> Entry | None:
        path = place / MANIFEST_FILE
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ModelDamaged(f"cannot read {path} ({error.strerror})") from None
        except ValidationError as error:
            raise ModelDamaged(
                f"{path} is no manifest that this release reads ({error.error_count()} fields do not fit); upgrade, or "
                f"delete {place} and add the model again"
            ) from None
        return Entry(place / FILES, manifest)

    def _sweep(self) -> None:
        """Remove what died while it was added, long ago."""
        for folder in (self.root / storage.PARTIAL).glob("*"):
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)


def _belongs(adapter: Entry, base: Entry) -> bool:
    return adapter.manifest.adapter is not None and adapter.manifest.adapter.base == base.manifest.reference
