"""Running a replay: the stage's own process on the replay's topics, fed with copies, until it has answered them all.

The process is started as `up` starts it, with another prefix and other settings; it knows nothing of replays. It is
recorded in `replays/PREFIX` of the state folder, so that a later command ends it where this one was killed. Which
records are copied `window` says, what is made and deleted `replays`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from pydantic import ValidationError

from penstock.cli import services
from penstock.cli.errors import CommandError, StackError
from penstock.cli.probe import readiness
from penstock.cli.reading import Progress, Read, record_of, result_of
from penstock.cli.replays import Manifest, Replays
from penstock.cli.state import BackingState, ServiceState, StackState, StateFolder
from penstock.cli.target import Target
from penstock.cli.vault_key import VARIABLE as VAULT_KEYS
from penstock.cli.vault_key import stored_vault_key
from penstock.cli.window import Copied, Copying
from penstock.contracts.headers import DEAD_LETTER
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.topics import DEAD_LETTERS, EVENTS, RESULTS, load_topics
from penstock.local.ports import free_port
from penstock.local.process import log_tail
from penstock.runtime.kafka import Names

READY_LIMIT_S = 300.0
STALLED_S = 900.0
PASSED = "passed"
"""What became of a record whose outcome is the next event."""

_DUPLICATE = "duplicate_request"
_CHECK = """
import sys
from importlib import import_module
from penstock.runtime.settings import load
settings = import_module(sys.argv[1]).Settings
wrong = [name for name in sys.argv[2:] if name.removeprefix("PENSTOCK_").lower() not in settings.model_fields]
for name in wrong:
    print(f"error: {name} is not a setting of this service", file=sys.stderr)
if wrong:
    sys.exit(2)
load(settings)
"""

Watch = Callable[[str], AbstractContextManager[Progress]]
"""Given what is being done, a function that is told how far it is."""


def outputs_of(stage: str) -> tuple[str, ...]:
    """The declared topics in which the outcomes of the stage's records stand."""
    kinds = (*(event.schema_name for event in EVENTS.values()), RequestFinished.schema_name, DeadLetter.schema_name)
    # what a stage reads it writes only to put a delayed record back
    return tuple(
        topic.name
        for topic in load_topics()
        if topic.message in kinds and stage in topic.written_by and stage not in topic.read_by
    )


def digests_of(settings: Mapping[str, str]) -> dict[str, str]:
    """Variable -> SHA-256, for those that name a file."""
    return {
        name: hashlib.sha256(Path(value).read_bytes()).hexdigest()
        for name, value in sorted(settings.items())
        if value.startswith("/") and Path(value).is_file()
    }


def folder_of(into: str) -> StateFolder:
    """Where the process and the log of a replay are recorded on this machine."""
    return StateFolder(StateFolder.configured().path / "replays" / into)


def check_settings(stage: str, settings: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Ask the service whether it would start with these; raises CommandError with its own sentences."""
    asked = subprocess.run(
        [sys.executable, "-c", _CHECK, f"penstock_{stage}.settings", *settings],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        sentences = [line.removeprefix("error: ") for line in asked.stderr.splitlines() if line.startswith("error: ")]
        raise CommandError("; ".join(sentences) or f"{stage} does not take its settings:\n{asked.stderr[-2000:]}")


def end_process(into: str) -> None:
    """End the stage's process where an interrupted run on this machine has left it."""
    state = folder_of(into).load()
    if state is not None:
        services.end(state.services.values())
        folder_of(into).clear()


def remove(replays: Replays) -> list[str]:
    """End what runs for the replay here and delete all it has; the names of the topics deleted."""
    folder = folder_of(replays.prefix)
    with folder.locked():
        end_process(replays.prefix)
        deleted = replays.remove()
    shutil.rmtree(folder.path)
    return deleted


class Run:
    """One run of a replay, the first or a resumed one."""

    def __init__(self, replays: Replays, manifest: Manifest) -> None:
        self._replays = replays
        self._manifest = manifest
        self._folder = folder_of(replays.prefix)
        self.copied = Copied()
        self.outcomes: Counter[str] = Counter()

    def environment(self, port: int = 0) -> dict[str, str]:
        """The stage's environment: the caller's, the replay's addresses and names, and its settings last."""
        broker = BackingState(kind="external", address=self._replays.live.bootstrap, ours=False)
        stage = self._manifest.stage
        key = _vault_key() if stage in services.WITH_VAULT else ""
        own = services.service_environment(
            stage, os.environ, broker=broker, prefix=self._replays.prefix, port=port, viewer=None, vault_key=key
        )
        once = {"PENSTOCK_EXACTLY_ONCE": "true", "PENSTOCK_INTERACTIVE_DELIVERY": "exactly_once"}
        generated = {"PENSTOCK_INFERENCE_CACHE_MIB": "0"}  # what is compared is what the stage makes of each record
        return {**own, **once, **generated, **self._manifest.settings}

    def run(self, watch: Watch, *, undo: Callable[[], object] | None = None) -> None:
        """Start the stage, copy the window, wait until each copy has its outcome, end the stage.

        `undo` is called where the stage does not start. Raises CommandError, also where the stage ends by itself.
        """
        with self._folder.locked():
            end_process(self._replays.prefix)
            for name, digest in digests_of(self._manifest.settings).items():
                if self._manifest.digests.get(name) != digest:
                    raise CommandError(f"the file that {name} names was changed since the replay began; start anew")
            try:
                service = self._ready(self._start(), undo)
                with watch("copying") as tell:
                    self.copied = Copying(self._replays.live, self._replays.own, self._manifest).run(tell)
                with watch("replaying") as tell:
                    self._drain(service, tell)
            finally:
                end_process(self._replays.prefix)

    def _start(self) -> ServiceState:
        stage, into = self._manifest.stage, self._replays.prefix
        port = free_port()
        service = services.start(stage, self._folder, self.environment(port), port)
        broker = BackingState(kind="external", address=self._replays.live.bootstrap, ours=False)
        self._folder.save(StackState(prefix=into, broker=broker, services={stage: service}))
        return service

    def _ready(self, service: ServiceState, undo: Callable[[], object] | None) -> ServiceState:
        """The service, once it is ready."""
        until = time.monotonic() + READY_LIMIT_S
        try:
            while not (answer := readiness(service.port)).ready:
                self._check_alive(service)
                if time.monotonic() > until:
                    raise StackError(
                        f"{service.name} is not ready after {READY_LIMIT_S:.0f} s ({answer.why}); see {service.log}"
                    )
                time.sleep(0.1)
        except StackError:
            if undo is not None:
                end_process(self._replays.prefix)
                undo()
            raise
        return service

    def _check_alive(self, service: ServiceState) -> None:
        if not service.identity.alive():
            raise StackError(f"{service.name} ended by itself; the end of {service.log}:\n{log_tail(service.log)}")

    def _drain(self, service: ServiceState, tell: Progress) -> None:
        reader = self._replays.own.reader()
        try:
            _assign(reader, self._replays.own, outputs_of(self._manifest.stage))
            moved = time.monotonic()
            done = 0
            while not (done >= self.copied.total and self._committed()):
                self._check_alive(service)
                before = done
                for message in reader.consume(1_000, timeout=0.2):
                    record = record_of(message)
                    if record is not None:
                        self._count(str(message.topic()), record)
                done = self.outcomes.total()
                if done != before:
                    moved = time.monotonic()
                elif time.monotonic() - moved > STALLED_S:
                    raise CommandError(
                        f"nothing came of {self.copied.total - done} records for {STALLED_S:.0f} s; look at "
                        f"{service.log}, then go on with --resume"
                    )
                tell(done, self.copied.total)
        finally:
            reader.close()
        if done > self.copied.total:
            raise CommandError(
                f"{done} outcomes of {self.copied.total} records: another program writes to the replay's topics"
            )

    def _count(self, topic: str, record: Read) -> None:
        name = Names(self._replays.prefix).plain(topic)
        if name == RESULTS:
            self.outcomes[result_of(record, self._replays.own.claims).status] += 1
        elif name != DEAD_LETTERS:
            self.outcomes[PASSED] += 1
        elif _is_duplicate(record):
            self.outcomes[_DUPLICATE] += 1

    def _committed(self) -> bool:
        """Whether the stage stands behind every copy."""
        own = self._replays.own
        parts = {(own.topic(name), number): last for (name, number), last in self.copied.last.items()}
        behind = self._replays.committed(self._manifest.stage)
        return all(behind.get(part, 0) > last for part, last in parts.items())


def _assign(reader: Consumer, own: Target, names: tuple[str, ...]) -> None:
    reader.assign([TopicPartition(own.topic(name), number, 0) for name in names for number in own.partitions(name)])


def _is_duplicate(record: Read) -> bool:
    """Whether a dead letter is all that became of its record."""
    try:
        letter = DeadLetter.model_validate_json(record.header(DEAD_LETTER) or b"")
    except ValidationError:
        return False
    return letter.error.code == _DUPLICATE


def _vault_key() -> str:
    stated = os.environ.get(VAULT_KEYS)
    if stated:
        return stated
    path = StateFolder.configured().vault_key_file
    if not path.exists():
        raise CommandError(f"this stage opens or seals vaults: set {VAULT_KEYS} as it is for the live service")
    return stored_vault_key(path)
