"""The chain of passing services as processes, with a supervisor that starts again what has ended by itself."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.faults.passing import READS
from tests.support.stack import StackError, wait_until

from penstock.local.ports import LOOPBACK, free_port
from penstock.local.process import ProcessIdentity, kill, log_tail, send, start_detached, stop
from penstock.local.root import project_root
from penstock.runtime import topics

LINKS = tuple(READS)
SUPERVISE_EVERY_S = 0.5


class Slot(NamedTuple):
    """One process: the link's name and its instance."""

    name: str
    instance: str = "0"


class Chain:
    """Passing services under one prefix. As a context manager it starts them and ends them.

    `bootstrap` is where the services connect, `direct` where the topics are made (the same unless a proxy
    stands between); `environment` is added to every service's own, `own` to that of one; `folder` takes the logs.
    `module` is what runs as each service.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        folder: Path,
        *,
        direct: str | None = None,
        replication: int = 1,
        partitions: int = 3,
        slots: Sequence[Slot] = tuple(Slot(name) for name in LINKS),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        module: str = "tests.faults.passing",
        own: Callable[[Slot], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self._folder = folder
        self._direct = direct or bootstrap
        self._replication = replication
        self._partitions = partitions
        self._slots = tuple(slots)
        self._extra = dict(environment or {})
        self._wait = wait
        self._module = module
        self._own = own
        self._running: dict[Slot, ProcessIdentity] = {}
        self._ports: dict[Slot, int] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self.restarts = 0
        """How often a service ended by itself and was started again."""

    def start(self) -> Chain:
        """Make the topics, start every service and, where so asked, wait until each is ready."""
        topics.apply(self._direct, self.prefix, replication=self._replication, partitions=self._partitions)
        try:
            for slot in self._slots:
                self._launch(slot)
            self._supervisor.start()
            if self._wait:
                self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_ready(self, seconds: float = 240) -> None:
        """Wait until each says that it is ready."""
        for slot in self._slots:
            wait_until(lambda slot=slot: self._ready(slot), f"{slot} ready", seconds, tails=self.tails)  # type: ignore[misc]  # a lambda with a default has no inferred type

    def kill(self, slot: Slot) -> None:
        """SIGKILL; the supervisor starts it again."""
        kill(self._running[slot])

    def freeze(self, slot: Slot) -> None:
        """SIGSTOP; raises StackError where it has ended."""
        if not send(self._running[slot], signal.SIGSTOP):
            raise StackError(f"{slot} ended; its log:\n{log_tail(self._log(slot))}")

    def thaw(self, slot: Slot) -> None:
        """SIGCONT."""
        send(self._running[slot], signal.SIGCONT)

    def journal(self, slot: Slot) -> list[str]:
        """The lines `begin` and `end` of a service's batches so far."""
        path = self._folder / f"{slot.name}-{slot.instance}.journal"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def events(self, slot: Slot, name: str) -> list[dict[str, object]]:
        """The log events of one name that a service has written."""
        whole = self._log(slot).read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def stuck(self) -> int:
        """How often a service ended because a call into the client did not return."""
        return sum(len(self.events(slot, "runtime.transaction.stuck")) for slot in self._slots)

    def tails(self) -> str:
        """The ends of the logs, for an error message."""
        return "\n".join(f"--- {slot.name}-{slot.instance}\n{log_tail(self._log(slot), 8)}" for slot in self._slots)

    def stop(self) -> None:
        """End all of them."""
        self._ending.set()
        with self._lock:
            for identity in self._running.values():
                send(identity, signal.SIGCONT)
                send(identity, signal.SIGTERM)
            for identity in self._running.values():
                stop(identity, grace_s=15)
            self._running.clear()

    def __enter__(self) -> Chain:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _supervise(self) -> None:
        while not self._ending.wait(SUPERVISE_EVERY_S):
            with self._lock:
                if self._ending.is_set():
                    return
                for slot, identity in list(self._running.items()):
                    if not identity.alive():
                        self._launch(slot)
                        self.restarts += 1

    def _launch(self, slot: Slot) -> None:
        if slot not in self._ports:
            self._ports[slot] = free_port(excluding=frozenset(self._ports.values()))
        base = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "OTEL_"))}
        environment = {
            **base,
            "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_HTTP_PORT": str(self._ports[slot]),
            "PENSTOCK_INSTANCE": slot.instance,
            "PASSING_JOURNAL": str(self._folder / f"{slot.name}-{slot.instance}.journal"),
            **self._extra,
            **self._own(slot),
        }
        self._running[slot] = start_detached(
            [sys.executable, "-m", self._module, slot.name],
            log_file=self._log(slot),
            cwd=project_root(),
            env=environment,
        )

    def _log(self, slot: Slot) -> Path:
        return self._folder / f"{slot.name}-{slot.instance}.log"

    def _ready(self, slot: Slot) -> bool:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self._ports[slot]}/readyz", timeout=5) as answer:
                return bool(json.loads(answer.read())["ready"])
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
