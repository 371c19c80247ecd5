"""The manifest of public sets: which files, under which licence, for which task, on which side of the split.

A source is on one side for every task, and no file is named by sources on different sides: what a model is reported
on is unknown to its training, pretraining included.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock_tuning.data.errors import ManifestError, SourceMissingError
from penstock_tuning.data.example import LABELS, RESOURCE, SPLITS

_DIGEST = re.compile(r"(?P<head>^  (?P<name>[a-z0-9_]+):\n(?:    .*\n)*?    digest: )\S+", re.M)

Split = Literal["train", "validation", "test"]
Task = Literal["safety", "pii", "entailment", "similarity", "text", "resource"]


class Source(BaseModel):
    """One part of a public set that is read in one way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    """Folder below the data folder."""
    files: tuple[str, ...]
    """Glob patterns below `path`."""
    origin: str
    licence: str
    digest: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    split: Split
    reader: str
    options: Mapping[str, Any] = Field(default_factory=dict)
    kind: str
    language: str = "en"
    """Of rows that say none; "auto" guesses from the words."""
    labels: Mapping[str, int] = Field(default_factory=dict)
    """What holds for every row."""
    label_map: Mapping[str, Mapping[str, int] | None] = Field(default_factory=dict)
    """From the value that the reader gives a row to its labels; null drops the row, "*" is any other value."""
    covers: tuple[str, ...] = ()
    """Span labels of which every occurrence is marked."""
    cap: int | None = None
    """At most this many rows, drawn evenly over languages and labels; not for pretraining that shares a source."""
    template_cap: int | None = None
    """At most this many rows of one template."""
    max_chars: int = 4000
    """Longer texts are cut at a paragraph end, or into passages of this size for the task `text`."""
    note: str = ""

    @model_validator(mode="after")
    def _names_exist(self) -> Source:
        known = {label for task in self.tasks for label in LABELS[task]}
        rows = (self.labels, *(row or {} for row in self.label_map.values()))
        if unknown := {name for row in rows for name in row} - known:
            raise ValueError(f"unknown labels {sorted(unknown)}")
        if any(value not in (0, 1) for row in rows for value in row.values()):
            raise ValueError("a label is 0 or 1")
        return self

    def paths(self, root: Path) -> list[Path]:
        """The files in a fixed order.

        Raises:
            SourceMissingError: a pattern matches no file.
        """
        folder = root / self.path
        found: set[Path] = set()
        for pattern in self.files:
            matched = [path for path in folder.glob(pattern) if path.is_file()]
            if not matched:
                raise SourceMissingError(f"{self.name}: nothing matches {self.path}/{pattern} in {root}")
            found.update(matched)
        return sorted(found)

    def measure(self, root: Path) -> str:
        """SHA-256 over the relative names and contents of the files."""
        total = hashlib.sha256()
        for path in self.paths(root):
            total.update(path.relative_to(root).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()


class Manifest(BaseModel):
    """All sources, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    sources: Mapping[str, Source]

    @model_validator(mode="before")
    @classmethod
    def _name_the_sources(cls, data: Any) -> Any:
        rows = data["sources"]
        return data | {"sources": {name: {"name": name, **row} for name, row in rows.items()}}

    def of(self, task: str, split: str | None = None) -> Iterator[Source]:
        """Sources of a task (on one side of the split), in the order of their names."""
        for name in sorted(self.sources):
            source = self.sources[name]
            if task in source.tasks and split in (None, source.split):
                yield source

    def attributions(self, tasks: Collection[str]) -> list[str]:
        """A line for each set that training of these tasks reads: where it is from, its licence, its parts."""
        parts: dict[tuple[str, str], list[str]] = {}
        for name, source in sorted(self.sources.items()):
            if source.split == "train" and set(source.tasks) & {*tasks, RESOURCE}:
                parts.setdefault((source.origin, source.licence), []).append(name)
        return [
            f"- https://github.com/{origin} ({licence}): {', '.join(names)}"
            for (origin, licence), names in parts.items()
        ]

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Names of the sources on each side."""
        return {split: sorted(n for n, s in self.sources.items() if s.split == split) for split in SPLITS}


def load(path: Path | None = None) -> Manifest:
    """Read a manifest; without a path the one that comes with the package.

    Raises:
        ManifestError: it is not a manifest.
    """
    text = path.read_text("utf-8") if path else _shipped().read_text("utf-8")
    try:
        return Manifest.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ManifestError(f"{path or 'the manifest of the package'}: {error}") from error


def verify(manifest: Manifest, root: Path) -> dict[str, str]:
    """What is wrong, by source; empty where every file is there and unchanged, and no file is on two sides."""
    wrong: dict[str, str] = {}
    owner: dict[Path, Source] = {}
    for name in sorted(manifest.sources):
        source = manifest.sources[name]
        try:
            paths = source.paths(root)
        except SourceMissingError as error:
            wrong[name] = f"missing: {error}"
            continue
        if (measured := source.measure(root)) != source.digest:
            wrong[name] = f"changed: the files have the digest {measured}"
        for path in paths:
            other = owner.setdefault(path, source)
            if other.split != source.split:
                wrong[name] = f"{path.relative_to(root)} is also in {other.name}, which is {other.split}"
    return wrong


def with_digests(text: str, digests: Mapping[str, str]) -> str:
    """The text of a manifest with new digests; all else, comments too, stays as it is."""
    return _DIGEST.sub(lambda m: f"{m['head']}{digests.get(m['name'], m[0][len(m['head']) :])}", text)


def shipped_path() -> Path:
    """The manifest of the package as a file, to be changed in a checkout."""
    return Path(str(_shipped()))


def _shipped() -> Any:
    return resources.files("penstock_tuning.data") / "manifest.yaml"
