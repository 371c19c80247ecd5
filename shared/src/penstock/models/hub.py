"""Fetching a model from a hub with the Hugging Face interface: what it holds, its files, their digests.

Two requests are all that is asked of the hub: `/api/models/ORG/NAME/revision/REV?blobs=true` for the commit and the
files with their digests, and `/ORG/NAME/resolve/COMMIT/FILE` for each. Files come over plain HTTP, resumed where a
download was cut, by this process or one before; nothing else is sent. Adding what was fetched is the registry's work.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path, PurePath
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx2

from penstock import __version__
from penstock.models import storage
from penstock.models.adding import ENDPOINT, SCHEME, TOKEN_VARIABLE
from penstock.models.errors import HubError, ModelDamaged, ModelRefused
from penstock.models.folders import is_taken, refuse_pickles

OFFLINE_VARIABLE: Final = "HF_HUB_OFFLINE"
_REFERENCE = re.compile(r"(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,128}))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_ATTEMPTS = 5
_CHUNK_BYTES = 1 << 20
_PART = ".part"
_AGAIN = "what has come so far is kept, and the same command goes on from there"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub declares it. Large ones have a SHA-256, small ones the SHA-1 that git names a blob by."""

    name: str
    bytes: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class HubModel:
    """One commit of a repository, and the files of it that are taken."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]
    left_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """NAME of ORG/NAME."""
        return self.repository.partition("/")[2]

    @property
    def bytes(self) -> int:
        """Size of the files taken."""
        return sum(file.bytes for file in self.files)


def parse(reference: str) -> tuple[str, str]:
    """`hub:ORG/NAME[@REV]` to ORG/NAME and a branch, tag or commit; raises ModelRefused."""
    match = _REFERENCE.fullmatch(reference.removeprefix(SCHEME))
    if match is None or ".." in reference:
        raise ModelRefused(f"{reference!r}: expected hub:ORG/NAME or hub:ORG/NAME@REVISION")
    return match["repository"], match["revision"] or "main"


class Hub:
    """One hub. Methods raise HubError with what to do; `pause` waits between attempts, in seconds."""

    def __init__(
        self,
        endpoint: str = ENDPOINT,
        token: str | None = None,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`token` is sent to the endpoint alone, not to where it redirects."""
        if os.environ.get(OFFLINE_VARIABLE, "").lower() in ("1", "true", "yes", "on"):
            raise HubError(f"{OFFLINE_VARIABLE} is set: unset it to fetch from {endpoint}, or add a folder instead")
        _check(endpoint)
        self._endpoint = endpoint.rstrip("/")
        self._pause = pause
        headers = {"User-Agent": f"penstock/{__version__}", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=True)

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def look(self, repository: str, revision: str) -> HubModel:
        """What a revision holds; raises ModelRefused where its weights are pickles, or there are none."""
        url = f"{self._endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
        what = f"{repository}@{revision}"
        with self._asked(url, what) as response:
            try:
                response.read()
                said = response.json()
                commit = said["sha"]
                listed = [_file(entry) for entry in said["siblings"]]
            except httpx2.HTTPError as error:
                raise self._unreachable(error) from None
            except (ValueError, TypeError, KeyError):
                commit, listed = None, []
        if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
            raise HubError(f"{self._endpoint} does not answer as a hub does; is the endpoint right?")
        names = {file.name for file in listed}
        whole = any(re.match(r"model.*\.safetensors$", name) for name in names)
        taken = tuple(
            file
            for file in listed
            if PurePath(file.name).name == file.name
            and is_taken(file.name)
            and not (whole and file.name.startswith("consolidated"))  # the same weights once more
        )
        if not any(file.name.endswith((".safetensors", ".onnx")) for file in taken):
            refuse_pickles(names, what)
            raise ModelRefused(f"{what} holds no safetensors and no ONNX graph at its top level")
        kept = {file.name for file in taken}
        return HubModel(repository, commit, taken, tuple(sorted(names - kept)))

    def fetch(self, model: HubModel, folder: Path, progress: storage.Progress = lambda _: None) -> None:
        """Bring all files of a model into a folder, those that are there left alone; each is checked by its digest."""
        for file in model.files:
            if (folder / file.name).is_file():
                progress(file.bytes)
                continue
            part = folder / f"{file.name}{_PART}"
            self._fetch(model, file, part, progress)
            if not _is(file, part):
                part.unlink()
                raise ModelDamaged(
                    f"{file.name} of {model.repository} is not the file that the hub declares (its digest differs); "
                    "it was deleted: try again"
                )
            part.rename(folder / file.name)

    def _fetch(self, model: HubModel, file: HubFile, part: Path, progress: storage.Progress) -> None:
        failures = 0
        told = 0
        while True:
            have = part.stat().st_size if part.exists() else 0
            if have > file.bytes:
                part.unlink()
                have = 0
            progress(have - told)
            told = have
            if have == file.bytes and part.exists():
                return
            try:
                self._stream(model, file, part, have)
            except (httpx2.TransportError, _Cut) as error:
                came = part.stat().st_size if part.exists() else 0
                failures = 0 if came > have else failures + 1
                if failures >= _ATTEMPTS:
                    raise self._unreachable(error) from None
                self._pause(0.5 * 2**failures)

    def _stream(self, model: HubModel, file: HubFile, part: Path, have: int) -> None:
        url = f"{self._endpoint}/{model.repository}/resolve/{model.commit}/{quote(file.name)}"
        with self._asked(url, f"{file.name} of {model.repository}", start=have) as response:
            resumed = response.status_code == httpx2.codes.PARTIAL_CONTENT
            with part.open("ab" if resumed else "wb") as writing:
                room = file.bytes - (have if resumed else 0)
                for chunk in response.iter_bytes():  # as they come: a chunk of a given size would be lost in a cut
                    writing.write(chunk[:room])
                    room -= len(chunk)
                    if room < 0:
                        break
        if room > 0:
            raise _Cut
        if room < 0:
            part.unlink()
            raise ModelDamaged(f"{file.name} of {model.repository} is longer than the hub declares; try again")

    @contextmanager
    def _asked(self, url: str, what: str, start: int = 0) -> Iterator[httpx2.Response]:
        """The answer to a GET, once it is none that a later attempt may improve."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
            except httpx2.TransportError as error:
                if attempt == _ATTEMPTS:
                    raise self._unreachable(error) from None
            except httpx2.HTTPError as error:
                raise HubError(f"{self._endpoint} does not answer as a hub does ({type(error).__name__})") from None
            else:
                if not _passing(response.status_code) or attempt == _ATTEMPTS:
                    break
                response.close()
            self._pause(0.5 * 2**attempt)
        try:
            self._judge(response.status_code, what)
            yield response
        finally:
            response.close()

    def _judge(self, status: int, what: str) -> None:
        if status in (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
            return
        if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            raise HubError(
                f"{self._endpoint} does not show {what}: it does not exist, is private, or wants its licence accepted "
                f"first; accept it on the model's page, and give a token in {TOKEN_VARIABLE}"
            )
        if status == httpx2.codes.NOT_FOUND:
            raise HubError(f"{self._endpoint} has no {what}; check name and revision")
        if status == httpx2.codes.RANGE_NOT_SATISFIABLE:
            raise HubError(f"{self._endpoint} has another {what} than it declared; try again later")
        raise HubError(f"{self._endpoint} answered {status} for {what}; try again later: {_AGAIN}")

    def _unreachable(self, error: Exception) -> HubError:
        return HubError(
            f"cannot reach {self._endpoint} ({type(error).__name__}): check the network and HTTPS_PROXY, or bring the "
            f"folder here by other means and add that; {_AGAIN}"
        )


class _Cut(Exception):
    """An answer ended before its time."""


@contextmanager
def download_folder(root: Path, model: HubModel) -> Iterator[Path]:
    """The folder in which a commit is gathered, one process's at a time; it stays for whoever tries again."""
    folder = root / storage.PARTIAL / f"hub-{model.repository.replace('/', '--')}-{model.commit[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HubError(f"another process is fetching {model.repository}; wait for it") from None
        os.utime(folder)  # it is in use: not to be swept
        yield folder


def _check(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme == "https" and parts.hostname:
        return
    try:
        local = parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        local = False
    if parts.scheme != "http" or not local:
        raise HubError(f"{endpoint!r} can be no hub: give an https:// address (http:// is for loopback alone)")


def _file(entry: dict[str, Any]) -> HubFile:
    name, size, lfs = entry["rfilename"], entry.get("size"), entry.get("lfs")
    large = lfs if isinstance(lfs, dict) else {}
    size = large.get("size", size)
    if not isinstance(name, str) or not isinstance(size, int) or size < 0:
        raise ValueError("no file")
    sha256, sha1 = large.get("sha256"), entry.get("blobId")
    return HubFile(name, size, str(sha256) if sha256 else None, str(sha1) if sha1 and not sha256 else None)


def _is(file: HubFile, path: Path) -> bool:
    """Whether a file has the digest that the hub declares; one without any is not taken."""
    if file.sha256 is not None:
        digest = hashlib.sha256()
    elif file.git_sha1 is not None:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        return False
    with path.open("rb") as reading:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.git_sha1)


def _passing(status: int) -> bool:
    """Whether a later attempt may fare better."""
    return status in (408, 429) or status >= 500
