"""Files that appear whole or not at all, one writer at a time, and copies that know their digest."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.models.errors import ModelError

PARTIAL = ".partial"
_CHUNK_BYTES = 4 << 20
_SPARE_BYTES = 64 << 20

Progress = Callable[[int], None]
"""Told how many bytes more are done."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the registry for writing; whoever comes second waits."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / ".lock").open("w")
    except OSError as error:
        raise ModelError(
            f"the registry at {root} cannot be written ({error.strerror}); give another folder with --models-dir or "
            "PENSTOCK_MODELS_DIR"
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or whoever comes after a crash, sees the old content or the new."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def partial_folder(root: Path) -> Iterator[Path]:
    """A new folder beside the revisions; removed unless it was renamed."""
    folder = root / PARTIAL / uuid.uuid4().hex[:12]
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ModelError(f"the registry at {root} cannot be written ({error.strerror})") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_room(root: Path, needed: int) -> None:
    """Raise ModelError where a file system has not got room for `needed` bytes."""
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < needed + _SPARE_BYTES:
        raise ModelError(
            f"{root} has {free >> 20} MiB free, the model needs {needed >> 20}; make room, or give another folder with "
            "--models-dir"
        )


def copy(source: Path, target: Path, progress: Progress) -> str:
    """Copy a file, readable by all and writable by none; the SHA-256 of what was written. Raises OSError."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
            progress(len(chunk))
        writing.flush()
        os.fsync(writing.fileno())
    target.chmod(0o444)
    return digest.hexdigest()


def link_instead(same: Path, target: Path) -> None:
    """Replace a copy by a hard link to a file of the same content; where the file system has none, it stays a copy."""
    link = target.with_name(f".{target.name}.link")
    try:
        os.link(same, link)
    except OSError:
        return
    link.replace(target)
