"""Where claimed values are kept: a folder, or a bucket behind the S3 protocol.

Both know names and bytes, nothing of topics and claims. Each says `ObjectMissing` where there is no such object,
and BackendUnavailable where the store does not do its work; trying again is left to the caller.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from penstock.contracts.errors import BackendUnavailable, ConfigurationError

if TYPE_CHECKING:
    from obstore.store import S3Store

VARIABLE = "PENSTOCK_CLAIM_STORE"
PARTIAL = ".partial"
"""Folder of objects that are being written; what a crash leaves there is collected like any other."""

_ANSWER_S = 30


class ObjectMissing(Exception):
    """There is no object of this name."""


class ObjectTooLarge(Exception):
    """The object has more bytes than were asked for; none was read."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    name: str
    bytes: int
    modified_s: float
    """When it was last written, seconds since the epoch."""


class ClaimStore(Protocol):
    """Named bytes. All methods may be called from any thread and raise BackendUnavailable."""

    def put(self, name: str, value: bytes) -> None:
        """Write whole or not at all, over what is there, and return once it lasts."""
        ...

    def get(self, name: str, most: int) -> bytes:
        """The bytes; raises ObjectMissing, and ObjectTooLarge where there are more than `most`."""
        ...

    def stat(self, name: str) -> Stored | None:
        """What is known of an object, None where it is not there."""
        ...

    def list(self) -> Iterator[Stored]:
        """All objects, in no order."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where it is not there."""
        ...


def unavailable(sentence: str) -> BackendUnavailable:
    """The error of a store that does not do its work, now."""
    return BackendUnavailable(sentence, code="claim_store_unavailable", field="claim")


def open_store(url: str) -> ClaimStore:
    """The store at `file:///FOLDER`, `/FOLDER` or `s3://BUCKET[/PREFIX]`; raises ConfigurationError.

    A folder has to be there. A bucket is not looked at: start order does not matter.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc and not parts.query:
        return BucketStore(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderStore(Path(unquote(parts.path)))
    if not parts.scheme and url.startswith("/"):
        return FolderStore(Path(url))
    raise ConfigurationError(f"{VARIABLE}: expected file:///FOLDER, /FOLDER or s3://BUCKET/PREFIX")


class FolderStore:
    """Files below a folder: written beside their place, synced, then renamed; readable by owner and group."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigurationError(f"{VARIABLE}: {folder} is not a folder; make it, or mount it")
        self._root = folder

    def put(self, name: str, value: bytes) -> None:
        """As of ClaimStore; the file, its name and the folders made for it are synced."""
        final = self._root / name
        partial = self._root / PARTIAL / uuid.uuid4().hex
        try:
            self._make(partial.parent)
            self._make(final.parent)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            with os.fdopen(descriptor, "wb") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(final)
            _sync(final.parent)
        except OSError as error:
            with suppress(OSError):  # what stays is collected later; the first error is the one to tell
                partial.unlink(missing_ok=True)
            raise _unavailable("write", error) from None

    def get(self, name: str, most: int) -> bytes:
        """As of ClaimStore."""
        try:
            with (self._root / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > most:
                    raise ObjectTooLarge(size)
                return file.read(most + 1)
        except (FileNotFoundError, NotADirectoryError):
            self._check()
            raise ObjectMissing(name) from None
        except OSError as error:
            raise _unavailable("read", error) from None

    def stat(self, name: str) -> Stored | None:
        """As of ClaimStore."""
        try:
            found = (self._root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._check()
            return None
        except OSError as error:
            raise _unavailable("read", error) from None
        return Stored(name, found.st_size, found.st_mtime)

    def list(self) -> Iterator[Stored]:
        """As of ClaimStore; folders that have become empty are left."""
        self._check()
        for path in self._root.rglob("*"):
            if path.is_file() and (found := self.stat(path.relative_to(self._root).as_posix())) is not None:
                yield found

    def delete(self, name: str) -> None:
        """As of ClaimStore."""
        try:
            (self._root / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable("delete", error) from None

    def _make(self, folder: Path) -> None:
        """The folder and those above it up to the root, which has to be there: it may be a mount that is gone."""
        if folder == self._root or folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(mode=0o750, exist_ok=True)
        _sync(folder.parent)

    def _check(self) -> None:
        if not self._root.is_dir():
            raise unavailable(f"the claim store's folder {self._root} is gone; mount it again")


class BucketStore:
    """Objects below a prefix of a bucket, through obstore (MIT): 15 MB, one compiled library, no SDK.

    Address and credentials come from the AWS_ variables (AWS_ENDPOINT_URL, AWS_ALLOW_HTTP, AWS_REGION,
    AWS_ACCESS_KEY_ID, ...). Without credentials there it asks the machine's metadata service, as AWS clients do.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            from obstore.store import S3Store  # noqa: PLC0415  # an extra: the folder store works without
        except ImportError:
            raise ConfigurationError(f"{VARIABLE}: s3:// needs the extra: install penstock[s3]") from None
        try:
            self._store: S3Store = S3Store(
                bucket,
                prefix=prefix or None,
                # its client's own time limits stand: 5 s to connect, 30 s to answer; options here would override AWS_*
                # one quick second try inside; waiting longer is the caller's, who knows when to stop
                retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=_ANSWER_S)},
            )
        except Exception as error:  # noqa: BLE001  # obstore's own root; any of its errors means bad settings here
            raise ConfigurationError(f"{VARIABLE}: {bucket} cannot be used ({type(error).__name__})") from None

    def put(self, name: str, value: bytes) -> None:
        """As of ClaimStore: one request, visible whole."""
        try:
            self._store.put(name, value, use_multipart=False)
        except Exception as error:  # noqa: BLE001  # every error of the library: the object was not stored
            raise _unavailable("write", error) from None

    def get(self, name: str, most: int) -> bytes:
        """As of ClaimStore; what is too large is not downloaded."""
        try:
            found = self._store.get(name)
            size = found.meta["size"]
            value = bytes(found.bytes()) if size <= most else b""
        except FileNotFoundError as error:
            raise _missing(name, error) from None
        except Exception as error:  # noqa: BLE001  # every other error of the library: it could not be read now
            raise _unavailable("read", error) from None
        if size > most:
            raise ObjectTooLarge(size)
        return value

    def stat(self, name: str) -> Stored | None:
        """As of ClaimStore."""
        try:
            found = self._store.head(name)
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001  # as in get
            raise _unavailable("read", error) from None
        return Stored(name, found["size"], found["last_modified"].timestamp())

    def list(self) -> Iterator[Stored]:
        """As of ClaimStore, a page at a time."""
        pages = iter(self._store.list())
        while True:
            try:
                page = next(pages, None)
            except Exception as error:  # noqa: BLE001  # as in get
                raise _unavailable("list", error) from None
            if page is None:
                return
            for found in page:
                yield Stored(found["path"], found["size"], found["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        """As of ClaimStore."""
        try:
            self._store.delete(name)
        except FileNotFoundError:
            return
        except Exception as error:  # noqa: BLE001  # as in get
            raise _unavailable("delete", error) from None


def _missing(name: str, error: FileNotFoundError) -> Exception:
    # a bucket that is not there is a wrong setting, not a lost object
    return _unavailable("read", error) if "NoSuchBucket" in str(error) else ObjectMissing(name)


def _unavailable(doing: str, error: Exception) -> BackendUnavailable:
    return unavailable(f"the claim store did not {doing} ({type(error).__name__}); look at {VARIABLE} and at the store")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
