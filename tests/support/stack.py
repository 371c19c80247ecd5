"""The five services as processes against one broker, started and ended for real."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from confluent_kafka import Message
from rich.console import Console
from tests.support.kafka import Follower, Publishing, Sender, Slot, place_of, read_all, results

from penstock.contracts import topics as names
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.local.ports import LOOPBACK, free_port
from penstock.local.process import ProcessIdentity, kill, log_tail, send, start_detached, stop
from penstock.local.root import project_root
from penstock.runtime import topics
from penstock.vault import VaultKeys, new_key

SERVICES = ("preprocess", "anonymize", "safety", "inference", "postprocess")
WITH_VAULT = frozenset({"anonymize", "postprocess"})


class StackError(Exception):
    """A service did not do what the suite needs; says which and shows the end of its log."""


@dataclass
class Running:
    """One service's process."""

    name: str
    identity: ProcessIdentity
    port: int
    log: Path


class Stack:
    """Five services under one topic prefix. As a context manager it starts them and ends them.

    `environment` is added to every service's own; `folder` takes the logs.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        folder: Path,
        *,
        partitions: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.folder = folder
        self._partitions = partitions
        self._extra = dict(environment or {})
        self._vault_key = new_key("suite")
        self._running: dict[str, Running] = {}
        self._ports: dict[str, int] = {}
        self._sender: Sender | None = None

    # --- processes

    def start(self) -> Stack:
        """Make the topics, start all five and wait until each is ready."""
        topics.apply(self.bootstrap, self.prefix, replication=1, partitions=self._partitions)
        try:
            for name in SERVICES:
                self.launch(name)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def launch(self, name: str) -> None:
        """Start one service and return at once; its log goes on in the same file."""
        if name not in self._ports:
            self._ports[name] = free_port(excluding=frozenset(self._ports.values()))
        log = self.folder / f"{name}.log"
        identity = start_detached(
            [sys.executable, "-m", f"penstock_{name}"], log_file=log, cwd=project_root(), env=self._environment(name)
        )
        self._running[name] = Running(name, identity, self._ports[name], log)

    def wait_ready(self, services: Iterable[str] = SERVICES, seconds: float = 120) -> None:
        """Wait until each answers that it is ready."""
        until = time.monotonic() + seconds
        for name in services:
            while not self.ready(name):
                if not self._running[name].identity.alive():
                    raise StackError(f"{name} ended; its log:\n{log_tail(self.log(name))}")
                if time.monotonic() > until:
                    raise StackError(f"{name} was not ready in time; its log:\n{log_tail(self.log(name))}")
                time.sleep(0.1)

    def ready(self, name: str) -> bool:
        """Whether a service says that it is ready."""
        try:
            return bool(json.loads(self._get(name, "/readyz"))["ready"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def kill(self, name: str) -> None:
        """SIGKILL."""
        kill(self._running[name].identity)

    def terminate(self, name: str, grace_s: float = 15) -> bool:
        """SIGTERM, and SIGKILL after `grace_s`; True where SIGTERM was enough."""
        return stop(self._running[name].identity, grace_s=grace_s)

    def freeze(self, name: str) -> bool:
        """SIGSTOP: the process halts where it is; False where it has ended."""
        return send(self._running[name].identity, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT: it goes on."""
        send(self._running[name].identity, signal.SIGCONT)

    def alive(self, name: str) -> bool:
        """Whether a service's process runs."""
        return name in self._running and self._running[name].identity.alive()

    def pid(self, name: str) -> int | None:
        """A service's process id; None before it was started."""
        return self._running[name].identity.pid if name in self._running else None

    def stop(self) -> None:
        """End all five."""
        for one in self._running.values():
            send(one.identity, signal.SIGCONT)
            send(one.identity, signal.SIGTERM)
        for one in self._running.values():
            stop(one.identity, grace_s=15)
        self._running.clear()
        self._sender = None  # its client would go on looking for a broker that is gone

    def __enter__(self) -> Stack:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what they say

    def log(self, name: str) -> Path:
        """A service's log file."""
        return self.folder / f"{name}.log"

    def logs(self) -> dict[str, str]:
        """Service -> everything it has logged."""
        return {name: self.log(name).read_text(encoding="utf-8", errors="replace") for name in SERVICES}

    @property
    def models_dir(self) -> Path:
        """Its services' model registry."""
        return self.folder / "models"

    def metrics(self, name: str) -> str:
        """What a service shows to Prometheus."""
        return self._get(name, "/metrics")

    @property
    def vault_keys(self) -> VaultKeys:
        """The key that anonymize and postprocess were given."""
        return VaultKeys.parse(self._vault_key)

    @property
    def vault_key(self) -> str:
        """The same as those services take it."""
        return self._vault_key

    # --- requests in, results out

    def send(self, requests: Iterable[Publishing]) -> list[Slot]:
        """Publish requests; where each one landed, in order."""
        self._sender = self._sender or Sender(self.bootstrap, self.prefix)
        return self._sender.send(requests)

    def wait_results(self, places: Iterable[Slot], seconds: float = 120) -> dict[Slot, RequestFinished]:
        """Wait until each of these requests has a terminal result; raises StackError naming how many have none."""
        waiting = set(places)
        found: dict[Slot, RequestFinished] = {}
        until = time.monotonic() + seconds
        with Follower(self.bootstrap, self.prefix, [names.RESULTS]) as follower:
            while waiting:
                for result in results(follower.poll()):
                    place = place_of(result)
                    if place in waiting:
                        waiting.discard(place)
                        found[place] = result
                self._still_run()
                if time.monotonic() > until:
                    raise StackError(f"{len(waiting)} requests have no result after {seconds:.0f} s\n{self.tails()}")
        return found

    def read(self, *topic_names: str, committed: bool = True) -> list[Message]:
        """All records of some topics."""
        return read_all(self.bootstrap, self.prefix, *topic_names, committed=committed)

    def results(self) -> list[RequestFinished]:
        """All terminal results so far, as a read_committed consumer sees them."""
        return results(self.read(names.RESULTS))

    def dead_letters(self) -> dict[Slot, tuple[DeadLetter, bytes | None]]:
        """All dead letters: where the record stood -> the reason and the kept bytes."""
        kept: dict[Slot, tuple[DeadLetter, bytes | None]] = {}
        for message in self.read(names.DEAD_LETTERS):
            headers = dict(message.headers() or [])
            if "dead-letter" not in headers and "redriven" in headers:
                continue  # it says of another letter that it was sent again
            letter = DeadLetter.model_validate_json(headers["dead-letter"])
            place = Slot(letter.source.topic, letter.source.partition, letter.source.offset)
            assert place not in kept, f"two dead letters for the record at {place}"
            kept[place] = (letter, message.value())
        return kept

    def tails(self, services: Sequence[str] = SERVICES) -> str:
        """The ends of the logs, for an error message."""
        return "\n".join(f"--- {name}\n{log_tail(self.log(name), lines=6)}" for name in services)

    def _still_run(self) -> None:
        for name in self._running:
            if not self.alive(name):
                raise StackError(f"{name} ended by itself; its log:\n{log_tail(self.log(name))}")

    def _get(self, name: str, path: str) -> str:
        url = f"http://{LOOPBACK}:{self._ports[name]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                body = error.read()
        return body.decode()

    def _environment(self, name: str) -> dict[str, str]:
        base = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "OTEL_"))}
        environment = {
            **base,
            "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_HTTP_PORT": str(self._ports[name]),
            "PENSTOCK_MODELS_DIR": str(self.models_dir),
            "PYTHONUNBUFFERED": "1",
            "PENSTOCK_INFERENCE_CACHE_MIB": "0",  # suites send the same again, and want it generated
            **self._extra,
        }
        if name in WITH_VAULT:
            environment["PENSTOCK_VAULT_KEYS"] = self._vault_key
        return environment


def saying(console: Console) -> Callable[[str], None]:
    """Prints what a long suite is at, with the seconds since now."""
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.0f} s[/dim] {text}", highlight=False, soft_wrap=True)

    return say


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = 90, *, tails: Callable[[], str] = lambda: ""
) -> None:
    """Wait for a condition; raises StackError saying what did not come, and what the logs' `tails` say then."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise StackError(f"not within {seconds:.0f} s: {what}\n{tails()}")
        time.sleep(0.05)
