"""Docker: whether an engine answers, and the broker and trace viewer of docker-compose.yml on it.

Leaves the services to the caller: here only the infrastructure is brought up, with the settings and
ports that the compose file declares.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from penstock.local.errors import LocalStackError, MissingToolError, StartError, StopError
from penstock.local.kafka import metadata_answers
from penstock.local.ports import LOOPBACK, accepts
from penstock.local.root import project_root

_UP_LIMIT_S = 600.0  # a cold start pulls images


def docker_answers(limit_s: float = 3.0) -> bool:
    """True when `docker info` reaches an engine within `limit_s`."""
    program = shutil.which("docker")
    if program is None:
        return False
    try:
        asked = subprocess.run(
            [program, "info"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


class ComposeInfrastructure:
    """The `kafka` and `jaeger` services of docker-compose.yml, published on loopback."""

    SERVICES = ("kafka", "jaeger")

    def __init__(self, root: Path | None = None, *, start_limit_s: float = 90.0) -> None:
        self._root = root or project_root()
        self._start_limit_s = start_limit_s

    @property
    def bootstrap_servers(self) -> str:
        """The broker's published address; `PENSTOCK_KAFKA_PORT` sets the port, as in the compose file."""
        return f"{LOOPBACK}:{_port('PENSTOCK_KAFKA_PORT', 9092)}"

    @property
    def otlp_endpoint(self) -> str:
        """Where the viewer takes OTLP over HTTP, for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://{LOOPBACK}:{_port('PENSTOCK_JAEGER_OTLP_PORT', 4320)}"

    @property
    def url(self) -> str:
        """The viewer's user interface."""
        return f"http://{LOOPBACK}:{_port('PENSTOCK_JAEGER_PORT', 16686)}"

    def trace_url(self, trace_id: str) -> str:
        """The page of one trace; `trace_id` in hexadecimal."""
        return f"{self.url}/trace/{trace_id}"

    def start(self) -> ComposeInfrastructure:
        """Bring both containers up and wait until the broker answers and the viewer listens.

        Starting what is up already changes nothing. Raises StartError with the end of compose's output.
        """
        self._compose("up", "-d", "--no-deps", *self.SERVICES)
        deadline = time.monotonic() + self._start_limit_s
        viewer = _port("PENSTOCK_JAEGER_PORT", 16686)
        while not (metadata_answers(self.bootstrap_servers) and accepts(LOOPBACK, viewer)):
            if time.monotonic() > deadline:
                raise StartError(
                    f"the containers {', '.join(self.SERVICES)} did not answer on {self.bootstrap_servers} and "
                    f"{self.url} within {self._start_limit_s:.0f} s; see `docker compose logs kafka jaeger`"
                )
            time.sleep(0.2)
        return self

    def stop(self) -> None:
        """Stop and remove both containers; others, and the broker's records, are left alone."""
        self._compose("rm", "--stop", "--force", "-v", *self.SERVICES)

    def delete_data(self) -> bool:
        """Remove the broker's records, once it is stopped; False where there are none."""
        volume = os.environ.get("PENSTOCK_KAFKA_VOLUME") or "penstock-kafka-data"
        if not _run(["docker", "volume", "ls", "--quiet", "--filter", f"name=^{volume}$"]).strip():
            return False
        _run(["docker", "volume", "rm", volume])
        return True

    def running(self) -> bool:
        """True when both containers run."""
        return len(self._compose("ps", "-q", *self.SERVICES).split()) == len(self.SERVICES)

    def _compose(self, *arguments: str) -> str:
        command = [*compose_command(), "--project-directory", str(self._root),
                   "-f", str(self._root / "docker-compose.yml"), *arguments]  # fmt: skip
        return _run(command, StopError if arguments[0] == "rm" else StartError)


def _run(command: list[str], failure: type[LocalStackError] = StopError) -> str:
    what = " ".join(command)
    try:
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_UP_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise failure(f"`{what}` did not end within {_UP_LIMIT_S:.0f} s") from error
    if finished.returncode != 0:
        tail = "\n".join((finished.stdout + finished.stderr).strip().splitlines()[-12:])
        raise failure(f"`{what}` failed:\n{tail}")
    return finished.stdout


def compose_command() -> list[str]:
    """`docker compose` where the plugin is there, else `docker-compose`."""
    docker = shutil.which("docker")
    if docker is not None:
        plugin = subprocess.run([docker, "compose", "version"], capture_output=True, check=False, timeout=10)
        if plugin.returncode == 0:
            return [docker, "compose"]
    standalone = shutil.which("docker-compose")
    if standalone is None:
        raise MissingToolError(
            "a Docker engine answers, but neither `docker compose` nor docker-compose is there; "
            "on Debian: apt-get install docker-compose"
        )
    return [standalone]


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise StartError(f"{variable} must be a port number from 1 to 65535, not {text!r}")
    return int(text)
