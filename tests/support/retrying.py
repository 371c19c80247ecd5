"""A service whose records fail as often as their ids say, as a process of its own; and starting and ending it.

An id is `KIND.FAILURES.RETRY_AFTER_S.NAME`, e.g. `rate.2.1.a`: its first two calls raise RateLimited with a
Retry-After of one second. Every call is a line in a file, which outlives the process: the file counts.

    python -m tests.support.retrying CALLS_FILE
"""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from penstock.contracts.errors import BackendTimeout, ConnectionFailed, Overloaded, RateLimited, RetriableError
from penstock.contracts.events import RequestAnonymized, RequestPreprocessed
from penstock.contracts.topics import PREPROCESSED
from penstock.local.ports import LOOPBACK, free_port
from penstock.local.process import ProcessIdentity, kill, start_detached, stop
from penstock.local.root import project_root
from penstock.runtime.app import serve
from penstock.runtime.settings import ServiceSettings, load
from penstock.runtime.stage import Inbound, Outcome

KINDS: dict[str, type[RetriableError]] = {
    "rate": RateLimited,
    "full": Overloaded,
    "late": BackendTimeout,
    "gone": ConnectionFailed,
}


class Calls:
    """Which ids the stage was called with, and when."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, request_id: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{request_id} {time.time()}\n")

    def of(self, request_id: str) -> list[float]:
        """When, in seconds since the epoch."""
        if not self._path.exists():
            return []
        lines = [line.split(" ") for line in self._path.read_text().splitlines()]
        return [float(line[1]) for line in lines if line[0] == request_id]


class Retrying:
    """Stands in for anonymize, whose topics it uses."""

    name = "anonymize"
    versions: ClassVar[dict[str, str]] = {"anonymize": "test"}

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        return [self._one(inbound) for inbound in batch]

    def _one(self, inbound: Inbound) -> Outcome:
        event = inbound.expect(RequestPreprocessed)
        request_id = event.context.request_id
        kind, failures, retry_after_s, _ = request_id.split(".")
        self._calls.add(request_id)
        if len(self._calls.of(request_id)) <= int(failures):
            asked = float(retry_after_s)
            return KINDS[kind]("the test says so", retry_after_s=asked or None)
        return RequestAnonymized(context=event.context, prompt=(), parameters=event.parameters)


class Process:
    """One instance of the service."""

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        folder: Path,
        *,
        instance: str = "0",
        command: Sequence[str] = (),
        **settings: str,
    ) -> None:
        """`command` is that of another service than this module's; `settings` are PENSTOCK_<NAME> in small letters."""
        self.calls = Calls(folder / "calls")
        self._command = list(command) or [sys.executable, "-m", "tests.support.retrying", str(folder / "calls")]
        self._port = free_port()
        base = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "OTEL_"))}
        own = {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
        self._environment = {
            **base,
            "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "PENSTOCK_TOPIC_PREFIX": prefix,
            "PENSTOCK_INSTANCE": instance,
            "PENSTOCK_HTTP_PORT": str(self._port),
            **own,
        }
        self._log = folder / f"service-{instance}.log"
        self._identity: ProcessIdentity | None = None

    def start(self) -> Process:
        self._identity = start_detached(self._command, log_file=self._log, cwd=project_root(), env=self._environment)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self._identity is not None
        assert self._identity.alive(), self._log.read_text()
        kill(self._identity)

    def metric(self, line: str) -> float:
        """The value of one line of /metrics; -1 where it is not there, or nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self._port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return -1.0
        return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(f"{line} ")), -1.0)

    def said(self) -> str:
        """What it has logged, over its restarts."""
        return self._log.read_text()

    def stop(self) -> None:
        if self._identity is not None:
            stop(self._identity, grace_s=15)

    def __enter__(self) -> Process:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def main() -> int:
    stage = Retrying(Calls(Path(sys.argv[1])))
    return serve(load(ServiceSettings), name=stage.name, consumes=(PREPROCESSED,), build=lambda _: stage)


if __name__ == "__main__":
    sys.exit(main())
