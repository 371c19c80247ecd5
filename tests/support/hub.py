"""A small hub on loopback: the two addresses that fetching a model needs, and a second server that holds the bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
LARGE_BYTES = 10_000
"""From here on a file is declared by its SHA-256, as one in large file storage is."""


@dataclass
class Asked:
    """One request: its path, Range and Authorization."""

    path: str
    range: str | None
    authorization: str | None
    elsewhere: bool
    """Whether the second server was asked."""


@dataclass
class Behaviour:
    """How the hub misbehaves; counts go down with each time."""

    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """File -> after how many bytes each answer, in turn, is cut."""
    statuses: list[int] = field(default_factory=list)
    """What the next requests are answered with, whatever they ask."""
    instead: dict[str, bytes] = field(default_factory=dict)
    """File -> other bytes of it."""
    ranges: bool = True
    token: str | None = None
    """Without it, everything is refused."""


class FakeHub:
    """A hub with one model, whose files are those of a folder. `endpoint` is its address."""

    def __init__(self, repository: str, folder: Path, **behaviour: Any) -> None:
        self.repository = repository
        self.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        self.behaviour = Behaviour(**behaviour)
        self.asked: list[Asked] = []
        self._servers = [self._serve(elsewhere) for elsewhere in (False, True)]
        self.endpoint, self._elsewhere = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> FakeHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody answers any more."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fetched(self, name: str) -> list[str | None]:
        """The Range of each time that a file's bytes were asked for."""
        return [one.range for one in self.asked if one.elsewhere and one.path.endswith(f"/{name}")]

    def description(self) -> dict[str, Any]:
        """What the hub says of the model."""
        siblings: list[dict[str, Any]] = []
        for name, content in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
            entry["blobId"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            if len(content) >= LARGE_BYTES:
                entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
            siblings.append(entry)
        return {"id": self.repository, "sha": COMMIT, "siblings": siblings}

    def _serve(self, elsewhere: bool) -> ThreadingHTTPServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                asked = Asked(path, self.headers.get("Range"), self.headers.get("Authorization"), elsewhere)
                hub.asked.append(asked)
                hub._answer(self, asked)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def _answer(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        behaviour = self.behaviour
        if behaviour.statuses:
            return _plain(handler, behaviour.statuses.pop(0), b"{}")
        if asked.elsewhere:
            return self._bytes(handler, asked)
        if behaviour.token is not None and asked.authorization != f"Bearer {behaviour.token}":
            return _plain(handler, 401, b"{}")
        if asked.path in (f"/api/models/{self.repository}/revision/{name}" for name in ("main", "v1", COMMIT)):
            return _plain(handler, 200, json.dumps(self.description()).encode())
        prefix = f"/{self.repository}/resolve/{COMMIT}/"
        if asked.path.startswith(prefix) and asked.path.removeprefix(prefix) in self.files:
            handler.send_response(302)
            handler.send_header("Location", f"{self._elsewhere}/{asked.path.removeprefix(prefix)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return None
        return _plain(handler, 404, b"{}")

    def _bytes(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        name = asked.path.removeprefix("/")
        content = self.behaviour.instead.get(name, self.files[name])
        start = 0
        if asked.range is not None and self.behaviour.ranges:
            start = int(asked.range.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        cuts = self.behaviour.cut_after.get(name)
        rest = content[start:]
        handler.wfile.write(rest[: cuts.pop(0)] if cuts else rest)
        handler.close_connection = True


def _plain(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
