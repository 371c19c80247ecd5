"""A server process that outlives the command which started it, and can be found and ended again later.

A process is known by its id together with its start time, so that an id which the system gave to
somebody else meanwhile is never signalled. Leaves ports, readiness and configuration to its callers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.local.errors import StartError, StopError

_PROC = Path("/proc")
_TAIL_BYTES = 8192
KILLED_WITHIN_S = 30.0
"""A large process on a machine that swaps takes a while to go."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process id and the system's own stamp of when that process started."""

    pid: int
    started: str

    def alive(self) -> bool:
        """True while this very process runs; a zombie counts as ended."""
        _reap(self.pid)
        return _start_stamp(self.pid) == self.started

    def save(self, path: Path) -> None:
        """Write the identity as JSON, whole or not at all."""
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> ProcessIdentity | None:
        """The identity in the file, or None where there is no such file."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(pid=int(fields["pid"]), started=str(fields["started"]))


def start_detached(
    command: Sequence[str], *, log_file: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> ProcessIdentity:
    """Start a command in a session of its own, both output streams appended to `log_file`.

    `env` replaces the environment where given. Raises StartError when the program cannot be run or
    has ended before it could be identified.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"{command[0]} could not be started: {error.strerror}") from error
    stamp = _start_stamp(child.pid)
    # The child is reaped by `alive` and `stop`; Popen must not warn that it still runs.
    returncode = child.poll()
    if stamp is None or returncode is not None:
        raise StartError(f"{command[0]} ended at once with status {returncode}:\n{log_tail(log_file)}")
    child.returncode = 0
    return ProcessIdentity(child.pid, stamp)


def stop(identity: ProcessIdentity, *, grace_s: float = 10.0) -> bool:
    """End a process: SIGTERM, then SIGKILL after `grace_s`; True when SIGTERM was enough.

    A process that has ended already is left alone. Raises StopError as `kill` does.
    """
    if not send(identity, signal.SIGTERM) or _wait_gone(identity, grace_s):
        return True
    kill(identity)
    return False


def kill(identity: ProcessIdentity) -> None:
    """End a process with SIGKILL and wait until it is gone; raises StopError where it is not in time."""
    if send(identity, signal.SIGKILL) and not _wait_gone(identity, KILLED_WITHIN_S):
        raise StopError(f"process {identity.pid} is still there {KILLED_WITHIN_S:.0f} s after SIGKILL")


def send(identity: ProcessIdentity, signum: signal.Signals) -> bool:
    """Send a signal; False when the process has ended already."""
    if not identity.alive():
        return False
    try:
        os.kill(identity.pid, signum)
    except ProcessLookupError:
        return False
    return True


def log_tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log file, for an error message."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return f"(no log at {path})"
    return "\n".join(text.splitlines()[-lines:]) or f"(nothing in {path})"


def _wait_gone(identity: ProcessIdentity, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while identity.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _reap(pid: int) -> None:
    """Collect the exit status where the process is a child of this one."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # started by an earlier command: somebody else collects it


def _start_stamp(pid: int) -> str | None:
    """When the process started, in the system's own notation; None when it is gone or a zombie."""
    if _PROC.joinpath("self", "stat").exists():
        try:
            stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # the name in brackets may hold spaces and brackets itself: what follows the last one is regular
        fields = stat.rpartition(")")[2].split()
        state, started = fields[0], fields[19]
        return None if state in "ZX" else started
    listed = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    state, _, started = listed.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
