"""Liveness, readiness and metrics over HTTP: /healthz, /readyz, /metrics."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from penstock.contracts.errors import ConfigurationError
from penstock.contracts.events import Priority

STALLED_AFTER_S = 60.0
"""A loop that has not turned for this long is not alive."""


class Health:
    """What the process says of itself. The worker calls `beat` each turn and sets `ready`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = clock()
        self.ready = False
        self.why_not = "starting"

    def beat(self) -> None:
        """The loop has turned."""
        self._beat = self._clock()

    @property
    def alive(self) -> bool:
        """Whether the loop turned lately."""
        return self._clock() - self._beat < STALLED_AFTER_S


class Vitals(Protocol):
    """What the server asks of a process's health."""

    @property
    def alive(self) -> bool:
        """Whether its loops turned lately."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it takes work."""
        ...

    @property
    def why_not(self) -> str:
        """Why it does not."""
        ...


class JoinedHealth:
    """The health of several loops as one: alive and ready where all of them are."""

    def __init__(self, parts: Mapping[Priority, Health]) -> None:
        self._parts = parts

    @property
    def alive(self) -> bool:
        """Whether all loops turned lately."""
        return all(part.alive for part in self._parts.values())

    @property
    def ready(self) -> bool:
        """Whether all take work."""
        return all(part.ready for part in self._parts.values())

    @property
    def why_not(self) -> str:
        """What they wait for; where it is not the same for all, which lane waits for what."""
        waiting = {lane: part.why_not for lane, part in self._parts.items() if not part.ready}
        if len(waiting) == len(self._parts) and len(set(waiting.values())) == 1:
            return next(iter(waiting.values()))
        return ", ".join(f"{lane}: {why}" for lane, why in waiting.items())


class HealthServer:
    """Serves health and metrics from a thread of its own."""

    def __init__(self, host: str, port: int, health: Vitals, exposition: Callable[[], bytes]) -> None:
        handler = _handler(health, exposition)
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise ConfigurationError(
                f"PENSTOCK_HTTP_PORT: cannot listen on {host}:{port} ({error.strerror}); "
                "choose another, or 0 for a free one"
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End, and free the port."""
        self._server.shutdown()
        self._server.server_close()


def _handler(health: Vitals, exposition: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path.split("?", 1)[0]:
                case "/healthz":
                    self._json(200 if health.alive else 503, {"alive": health.alive})
                case "/readyz":
                    why = {} if health.ready else {"why": health.why_not}
                    self._json(200 if health.ready else 503, {"ready": health.ready, **why})
                case "/metrics":
                    self._reply(200, "text/plain; version=0.0.4; charset=utf-8", exposition())
                case _:
                    self._json(404, {"error": "try /healthz, /readyz or /metrics"})

        def _json(self, status: int, body: dict[str, Any]) -> None:
            self._reply(status, "application/json", json.dumps(body).encode())

        def _reply(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Scrapes are not worth a log line."""

    return Handler
