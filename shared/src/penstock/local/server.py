"""What the local broker and the local trace viewer share: one detached process on loopback and its folder.

A server may outlive the command that started it: its folder holds its process id and port, by which a
later command finds it. How it is launched, and when it is ready, is the subclass's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from penstock.local.errors import AlreadyRunningError, LocalStackError, StartError
from penstock.local.ports import require_free
from penstock.local.process import ProcessIdentity, kill, log_tail, stop


class LocalServer(ABC):
    """One server. `folder` None: a temporary folder lives from `start` to `stop`. Not thread-safe.

    `port` 0 takes any free port. As a context manager it starts and stops the server.
    """

    what: ClassVar[str]
    """What a message calls it."""
    stem: ClassVar[str]
    """The first part of its files' names, and of its temporary folder's."""

    def __init__(self, folder: Path | None, port: int, *, start_limit_s: float, root: Path | None) -> None:
        self._keep = folder is not None
        self._folder = folder.resolve() if folder is not None else None
        self._wanted_port = port
        self._port: int | None = port or None
        self._start_limit_s = start_limit_s
        self._root = root
        self._identity: ProcessIdentity | None = None

    @classmethod
    def attach(cls, folder: Path) -> Self | None:
        """The server that runs in this folder, started by this or an earlier process; else None."""
        identity = ProcessIdentity.load(folder / f"{cls.stem}.pid.json")
        if identity is None or not identity.alive():
            return None
        server = cls._at(folder, int(json.loads((folder / f"{cls.stem}.json").read_text(encoding="utf-8"))["port"]))
        server._identity = identity
        return server

    @classmethod
    @abstractmethod
    def _at(cls, folder: Path, port: int) -> Self:
        """A server object for this folder and port."""

    @abstractmethod
    def _launch(self) -> None:
        """Start the process through `_started` and wait until it is ready."""

    @property
    def port(self) -> int:
        """The loopback port; known once started, and kept for later starts of the same object."""
        if self._port is None:
            raise LocalStackError(f"the {self.what} has no port before it is started")
        return self._port

    @property
    def pid(self) -> int:
        """The process id; raises LocalStackError when it was not started."""
        if self._identity is None:
            raise LocalStackError(f"the {self.what} is not started")
        return self._identity.pid

    @property
    def folder(self) -> Path:
        """Where its files are, the log among them."""
        if self._folder is None:
            raise LocalStackError(f"the {self.what} has no folder before it is started")
        return self._folder

    @property
    def log_file(self) -> Path:
        """The server's own output."""
        return self.folder / f"{self.stem}.log"

    def running(self) -> bool:
        """True while the process is alive."""
        return self._identity is not None and self._identity.alive()

    def start(self) -> Self:
        """Bring the server up and wait until it is ready.

        Raises a LocalStackError that says what to do: MissingToolError, ResolveError, PortInUseError,
        AlreadyRunningError, or StartError with the end of the log.
        """
        if self.running():
            raise AlreadyRunningError(f"this {self.what} already runs as process {self.pid}")
        if self._wanted_port:
            require_free(self._wanted_port, f"the {self.what}")
        if self._folder is not None and self.attach(self._folder) is not None:
            raise AlreadyRunningError(f"a {self.what} already runs on {self._folder}; stop it or attach to it")
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"penstock-{self.stem}-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._launch()
        except BaseException:
            self.kill()
            self._discard()
            raise
        return self

    def stop(self, grace_s: float = 10.0) -> None:
        """End the server: SIGTERM, then SIGKILL after `grace_s`. Nothing happens where none runs.

        One in a temporary folder is killed: what an orderly end would write goes with the folder.
        """
        if self._identity is not None and self._keep:
            stop(self._identity, grace_s=grace_s)
        elif self._identity is not None:
            kill(self._identity)
        self._discard()

    def kill(self) -> None:
        """End the server with SIGKILL and keep its folder: a crash. `start` brings it back on the same port."""
        if self._identity is not None:
            kill(self._identity)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _started(self, identity: ProcessIdentity) -> None:
        """Remember the process, here and for later commands."""
        self._identity = identity
        identity.save(self.folder / f"{self.stem}.pid.json")

    def _note_port(self) -> None:
        (self.folder / f"{self.stem}.json").write_text(json.dumps({"port": self.port}) + "\n", encoding="utf-8")

    def _discard(self) -> None:
        self._identity = None
        if self._folder is None:
            return
        (self._folder / f"{self.stem}.pid.json").unlink(missing_ok=True)
        if not self._keep:
            shutil.rmtree(self._folder)
            self._folder = None
            self._port = self._wanted_port or None


def wait_ready(what: str, identity: ProcessIdentity, ready: Callable[[], bool], log_file: Path, limit_s: float) -> None:
    """Wait until `ready`; raises StartError with the end of the log when the process ends or `limit_s` passes."""
    deadline = time.monotonic() + limit_s
    while not ready():
        if not identity.alive():
            raise StartError(f"the {what} ended while starting; the end of its log:\n{log_tail(log_file)}")
        if time.monotonic() > deadline:
            raise StartError(
                f"the {what} did not answer within {limit_s:.0f} s; the end of its log:\n{log_tail(log_file)}"
            )
        time.sleep(0.03)
