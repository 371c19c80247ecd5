"""Five processes in a chain on one broker: drain a backlog through them, and time single requests.

A backlog is written in one transaction while every hop is up and idle, so that it becomes visible whole, at
a known moment, to consumers that read committed records. It counts what arrives and never asks the hops.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from tests.benchmarks.pipeline.passing import HOPS, PATH, request
from tests.support.stack import StackError

from penstock.contracts import topics
from penstock.local.process import ProcessIdentity, log_tail, start_detached, stop
from penstock.local.root import project_root
from penstock.runtime.topics import apply

PARTITIONS = 8
STUCK_S = 60.0
"""No result for this long is a failure of the chain."""
WARM_UP = 200
_ID = re.compile(rb'"(?:id|request_id)": ?"([^"]+)"')
_READY = re.compile(r"^ready$|runtime\.partitions\.assigned", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Drain:
    """One backlog, from when it became visible to its last result."""

    messages: int
    seconds: float
    cpu_us: float
    """Processor time of the five hops for each message and hop, microseconds."""
    duplicates: int
    rss_mb: dict[str, float]
    """Hop -> its resident memory, mean of the samples in the last third of the drain."""

    @property
    def rate(self) -> float:
        """Messages a second, end to end."""
        return self.messages / self.seconds


@dataclass
class Latency:
    """Requests at a steady rate: milliseconds from sending to being readable, for each hop and over all."""

    total: list[float]
    hops: dict[str, list[float]]


@dataclass
class Chain:
    """A running chain of one kind. As a context manager it starts the hops and ends them."""

    kind: str
    bootstrap: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: f"b{uuid.uuid4().hex[:10]}.")
    _hops: dict[str, ProcessIdentity] = field(default_factory=dict)
    _run: int = 0

    def __enter__(self) -> Chain:
        apply(self.bootstrap, self.prefix, replication=1, partitions=PARTITIONS)
        env = os.environ | {
            "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_LOG_LEVEL": "info",
            **self.environment,
        }
        try:
            for hop in HOPS:
                command = [sys.executable, "-m", "tests.benchmarks.pipeline.hop", self.kind, hop.name]
                self._hops[hop.name] = start_detached(
                    command, log_file=self._log(hop.name), cwd=project_root(), env=env
                )
            self._wait_ready()
            self._results = self._reader([topics.RESULTS], from_end=False)
            self.drain(WARM_UP)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._results.close()
        self._stop()

    def drain(self, messages: int) -> Drain:
        """Send `messages` at once and wait for all their results."""
        ids = self._backlog(messages)
        before, began = self._cpu(), time.monotonic()
        self._producer.commit_transaction()
        samples: list[tuple[float, dict[str, float]]] = []
        found: set[bytes] = set()
        arrived, last = 0, began
        looked = began
        while len(found) < messages:
            records = [m for m in self._results.consume(10_000, 0.05) if m.error() is None]
            now = time.monotonic()
            if records:
                last = now
                names = [name for m in records if (name := _id_of(m.value())).startswith(ids)]
                arrived += len(names)
                found.update(names)
            elif now - last > STUCK_S:
                raise StackError(f"{self.kind}: {len(found)} of {messages} results\n{self._logs()}")
            if now - looked > 0.5:
                looked = now
                samples.append((now, self._rss()))
        spent = self._cpu() - before
        samples.append((last, self._rss()))
        arrived += sum(_id_of(m.value()).startswith(ids) for m in self._rest())
        late = [rss for at, rss in samples if at >= last - (last - began) / 3]
        return Drain(
            messages=messages,
            seconds=last - began,
            cpu_us=spent / messages / (len(PATH) - 1) * 1e6,
            duplicates=arrived - messages,
            rss_mb={name: statistics.mean(rss[name] for rss in late) for name in self._hops},
        )

    def _rest(self) -> list[Message]:
        """What stands behind the last result that was waited for."""
        ends = {p.partition: self._results.get_watermark_offsets(p, timeout=20)[1] for p in self._results.assignment()}
        found: list[Message] = []
        quiet = time.monotonic()
        # transaction markers take up offsets and are no messages: where nothing comes any more, that is the end
        while time.monotonic() - quiet < 1 and any(
            p.offset < ends[p.partition] for p in self._results.position(self._results.assignment())
        ):
            more = [m for m in self._results.consume(10_000, 0.1) if m.error() is None]
            if more:
                quiet = time.monotonic()
            found += more
        return found

    def latency(self, rate: float, count: int, warm_up: int = 20) -> Latency:
        """Send single requests `rate` a second and time each at every topic; the first `warm_up` do not count."""
        self._run += 1
        mark = f"{self._run}-l-"
        arrived: dict[str, dict[bytes, float]] = {topic: {} for topic in PATH}
        observer = self._reader(PATH)
        feeder = threading.Thread(target=self._feed, args=(mark, rate, count + warm_up, arrived[PATH[0]]))
        feeder.start()
        until = time.monotonic() + (count + warm_up) / rate + STUCK_S
        wanted = count + warm_up
        while any(len(times) < wanted for times in arrived.values()):
            message = observer.poll(0.2)
            now = time.perf_counter()
            if time.monotonic() > until:
                raise StackError(f"{self.kind}: {len(arrived[PATH[-1]])} of {wanted} results\n{self._logs()}")
            if message is None or message.error() is not None:
                continue
            topic = message.topic().removeprefix(self.prefix)
            name = _id_of(message.value())
            if topic != PATH[0] and name.startswith(mark.encode()):
                arrived[topic].setdefault(name, now)
        feeder.join()
        observer.close()
        names = [f"{mark}{number}".encode() for number in range(warm_up, wanted)]
        steps = {
            hop.name: [1000 * (arrived[hop.produces][n] - arrived[hop.consumes][n]) for n in names] for hop in HOPS
        }
        return Latency([1000 * (arrived[PATH[-1]][n] - arrived[PATH[0]][n]) for n in names], steps)

    def _feed(self, mark: str, rate: float, count: int, sent: dict[bytes, float]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "acks": "all", "linger.ms": 0})
        due = time.perf_counter()
        for number in range(count):
            name = f"{mark}{number}"
            value = request(name, number)
            time.sleep(max(0.0, due - time.perf_counter()))
            sent[name.encode()] = time.perf_counter()
            producer.produce(f"{self.prefix}{topics.REQUESTS}", value, name.encode())
            producer.poll(0)
            due += 1 / rate
        producer.flush(30)

    def _backlog(self, messages: int) -> bytes:
        """Write the backlog in an open transaction; returns what its request ids begin with."""
        self._run += 1
        mark = f"{self._run}-"
        self._producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": f"{self.prefix}backlog-{self._run}",
                "transaction.timeout.ms": 800_000,
                "linger.ms": 50,
            }
        )
        self._producer.init_transactions(30)
        self._producer.begin_transaction()
        head, tail = request("MARK", 1).split(b"MARK")
        for number in range(messages):
            name = f"{mark}{number}".encode()
            while True:
                try:
                    self._producer.produce(f"{self.prefix}{topics.REQUESTS}", head + name + tail, name)
                except BufferError:
                    self._producer.poll(0.1)
                else:
                    break
        self._producer.flush()
        return mark.encode()

    def _reader(self, names: Sequence[str], *, from_end: bool = True) -> Consumer:
        """Reads committed records of topics, from what comes next or from their beginning."""
        reader = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.prefix}reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 65_536,
            }
        )
        places = [TopicPartition(f"{self.prefix}{name}", number, 0) for name in names for number in range(PARTITIONS)]
        for place in places if from_end else ():
            place.offset = _end_of(reader, place)
        reader.assign(places)
        return reader

    # --- processes

    def _wait_ready(self, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        for name, identity in self._hops.items():
            while not _READY.search(self._log(name).read_text(errors="replace")):
                if not identity.alive():
                    raise StackError(f"{self.kind} {name} ended; its log:\n{log_tail(self._log(name))}")
                if time.monotonic() > until:
                    raise StackError(f"{self.kind} {name} was not ready in time:\n{log_tail(self._log(name))}")
                time.sleep(0.05)

    def _cpu(self) -> float:
        """Processor seconds of all hops so far."""
        total = 0.0
        for identity in self._hops.values():
            fields = Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / _TICKS
        return total

    def _rss(self) -> dict[str, float]:
        """Hop -> resident memory, MiB."""
        pages = {name: Path(f"/proc/{i.pid}/statm").read_text().split()[1] for name, i in self._hops.items()}
        return {name: int(count) * os.sysconf("SC_PAGE_SIZE") / 2**20 for name, count in pages.items()}

    def _stop(self) -> None:
        for identity in self._hops.values():
            stop(identity, grace_s=15)
        self._hops.clear()

    def _log(self, name: str) -> Path:
        return self.folder / f"{self.prefix}{self.kind}-{name}.log"

    def _logs(self) -> str:
        return "\n".join(f"--- {name}\n{log_tail(self._log(name))}" for name in self._hops)


def _end_of(reader: Consumer, place: TopicPartition) -> int:
    """The offset after the last record; asked for again while the leader of a new topic is not known to all."""
    until = time.monotonic() + STUCK_S
    while True:
        try:
            return reader.get_watermark_offsets(place, timeout=20)[1]
        except KafkaException:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _id_of(value: bytes | None) -> bytes:
    """The request id in a record of any of the topics."""
    found = _ID.search(value or b"")
    return found[1] if found is not None else json.dumps(None).encode()
