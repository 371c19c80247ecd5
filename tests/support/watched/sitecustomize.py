"""For a Python process that is watched: its folder on PYTHONPATH, and WATCH_LOG naming a file.

Appends a line of JSON for each address that the process connects to, each name that it looks up and each file or
folder that it makes or writes below its home folder. It cannot import ONNX Runtime where that would report its use.
Compiled code is not seen here: `tests.support.watching` looks at its sockets from outside.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from typing import Any

_REPORTING = frozenset({"onnxruntime", "onnxruntime_genai"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
_HOMES = tuple({f"{home}/" for home in (os.environ["HOME"], pwd.getpwuid(os.getuid()).pw_dir) if home != "/"})
_CHANGES = frozenset({"os.mkdir", "os.rename", "os.link", "os.symlink"})
_log = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _note(what: str, detail: object) -> None:
    program = " ".join(getattr(sys, "argv", [])[:2])
    # one write of a short line in append mode is never torn
    os.write(_log, (json.dumps({"program": program, "what": what, "detail": detail}) + "\n").encode())


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        if isinstance(arguments[1], tuple):
            _note("connect", list(arguments[1][:2]))
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        _note("lookup", str(arguments[0]))
    elif event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITING:
            _changed(path)
    elif event in _CHANGES:
        _changed(arguments[-2] if event == "os.mkdir" else arguments[1])


def _changed(path: object) -> None:
    if isinstance(path, str | bytes | os.PathLike):
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # pathlib is not imported for this alone
        if name.startswith(_HOMES):
            _note("write", name)


class _Refusing:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in _REPORTING and os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
            _note("reporting", name)
            raise ImportError(f"{name} is imported without ORT_DISABLE_TELEMETRY=1")


sys.addaudithook(_hear)
sys.meta_path.insert(0, _Refusing())  # type: ignore[arg-type]  # finds nothing, so it has no loader to declare
