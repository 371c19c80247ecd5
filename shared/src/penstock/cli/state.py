"""The state folder of the local stack: what `up` started, so that `down` ends exactly that.

    .penstock/            or PENSTOCK_STATE_DIR
        state.json        addresses, process ids with their start times, ports
        vault-key         mode 0600; for anonymize and postprocess alone
        logs/NAME.log     one for each service
        broker/ viewer/   of the broker and trace viewer that run without containers

Starting and ending processes is left to `stack`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.cli.errors import StackError
from penstock.local.process import ProcessIdentity

STATE_DIR_VARIABLE = "PENSTOCK_STATE_DIR"

BackingKind = Literal["process", "container", "external"]
ViewerKind = Literal["zipkin", "jaeger"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceState(_Frozen):
    """One service's process."""

    name: str
    pid: int
    started: str
    """The system's stamp of the process's start: with the pid, it names one process for ever."""
    port: int
    """Of its health and metrics, on loopback."""
    log: Path

    @property
    def identity(self) -> ProcessIdentity:
        """What to signal."""
        return ProcessIdentity(self.pid, self.started)


class BackingState(_Frozen):
    """The broker: a process, a container, or one that was named."""

    kind: BackingKind
    address: str
    """Bootstrap servers."""
    ours: bool
    """Whether `down` ends it."""


class ViewerState(BackingState):
    """The trace viewer; `address` is the URL of its user interface."""

    viewer: ViewerKind
    spans: str
    """Where it takes spans."""


class StackState(_Frozen):
    """What `up` has brought up so far."""

    version: Literal[1] = 1
    prefix: str = ""
    broker: BackingState
    viewer: ViewerState | None = None
    services: dict[str, ServiceState] = Field(default_factory=dict)


class StateFolder:
    """Paths, and reading and writing `state.json` whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def configured(cls) -> StateFolder:
        """PENSTOCK_STATE_DIR, else `.penstock` in the current folder."""
        return cls(Path(os.environ.get(STATE_DIR_VARIABLE) or ".penstock").expanduser().resolve())

    @property
    def state_file(self) -> Path:
        """`state.json`."""
        return self.path / "state.json"

    @property
    def vault_key_file(self) -> Path:
        """The vault's master key, readable by its owner alone."""
        return self.path / "vault-key"

    @property
    def broker_dir(self) -> Path:
        """The local broker's data, configuration and log."""
        return self.path / "broker"

    @property
    def viewer_dir(self) -> Path:
        """The local viewer's log and process id."""
        return self.path / "viewer"

    def log_file(self, service: str) -> Path:
        """Where a service's output goes."""
        return self.path / "logs" / f"{service}.log"

    def load(self) -> StackState | None:
        """The recorded stack, None where there is none; raises StackError where the file is not readable as one."""
        try:
            text = self.state_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return StackState.model_validate_json(text)
        except ValidationError as error:
            raise StackError(
                f"{self.state_file} is not a state file of this release ({error.error_count()} fields do not fit); "
                "end its processes by hand and remove it"
            ) from None

    def save(self, state: StackState) -> None:
        """Write the state so that a reader sees the old one or the new one."""
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.state_file.with_suffix(".partial")
        partial.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(self.state_file)

    def clear(self) -> None:
        """Forget the stack; logs, data and the vault key stay."""
        self.state_file.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one `up` or `down`; raises StackError where another command holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(
                    f"another penstock command is bringing the stack in {self.path} up or down; wait for it to end"
                ) from None
            yield  # the lock ends with the file handle, also where this process is killed
