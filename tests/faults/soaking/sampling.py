"""Memory, descriptors, threads, processor time and lag, every few seconds, as lines of JSON in a file.

Each line has `what` (`run`, `sample`, `minute`, `fault`, `ended`, `end`) and `t`, seconds since the load began.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.faults.killing import HOPS
from tests.support.background import Background
from tests.support.kafka import settings
from tests.support.stack import SERVICES, Stack

from penstock.contracts import topics
from penstock.contracts.lanes import LANES
from penstock.runtime import kafka

MIB = 1 << 20
PARTITIONS = 2
BACK_S = 20.0
"""A broker has been up for so long when it is asked for the lag again."""
"""Of every topic."""


class Samples:
    """The file; every line is written through at once, so that a run cut off leaves all it has seen."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    def begin(self, **facts: Any) -> None:
        """The load begins now."""
        self._began = time.monotonic()
        self.write("run", **facts)

    def write(self, what: str, **facts: Any) -> None:
        """One line."""
        with self._lock:
            self._file.write(json.dumps({"what": what, "t": round(self.now(), 2), **facts}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Samples:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lags:
    """How far the groups are behind by the broker's word: from the committed offset to the stable end.

    Markers of transactions take up offsets too, so an idle group is one or a few behind.
    """

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._admin = AdminClient({**kafka.common(settings(bootstrap, prefix)), "log_level": 0})
        names = kafka.Names(prefix)
        self._parts: dict[tuple[str, str], list[TopicPartition]] = {}
        for service, hops in HOPS.items():
            for lane in LANES:
                read = [names.topic(topics.in_lane(name, lane)) for name, _ in hops]
                self._parts[service, names.group(service, lane)] = [
                    TopicPartition(name, number) for name in read for number in range(PARTITIONS)
                ]

    def now(self) -> dict[str, int]:
        """Service -> records, both lanes; raises KafkaException where the broker does not answer."""
        every = [part for parts in self._parts.values() for part in parts]
        asked = self._admin.list_offsets(
            {part: OffsetSpec.latest() for part in every},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=5,
        )
        groups = {
            (service, group): self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, parts)], request_timeout=5
            )[group]
            for (service, group), parts in self._parts.items()
        }
        ends = {(part.topic, part.partition): future.result().offset for part, future in asked.items()}
        lags = dict.fromkeys(HOPS, 0)
        for (service, _), future in groups.items():
            for part in future.result().topic_partitions:
                lags[service] += max(0, ends[part.topic, part.partition] - max(0, part.offset))
        return lags


class Sampler(Background):
    """Takes a sample every `every_s` from a thread of its own."""

    def __init__(self, stack: Stack, broker_pid: Callable[[], int | None], samples: Samples, every_s: float) -> None:
        super().__init__("sampler")
        self._stack = stack
        self._broker_pid = broker_pid
        self._samples = samples
        self._every_s = every_s
        self._lags: Lags | None = None
        self._asking = threading.Lock()
        self._ask_from = 0.0
        self._last: Mapping[str, dict[str, float]] = {}

    def last(self) -> Mapping[str, dict[str, float]]:
        """The newest sample's processes; raises what ended the thread."""
        self._check()
        return self._last

    @contextmanager
    def without_lag(self) -> Iterator[None]:
        """Ask the broker nothing meanwhile, nor just after: admin requests may crash the client when a broker goes."""
        with self._asking:
            self._lags = None
            try:
                yield
            finally:
                self._ask_from = time.monotonic() + BACK_S

    def _run(self) -> None:
        psutil.cpu_percent()  # a thread's first call has nothing to compare with
        while not self._ending.wait(self._every_s):
            self._take()

    def _take(self) -> None:
        pids = {name: self._stack.pid(name) for name in SERVICES} | {"broker": self._broker_pid()}
        found = {name: process_of(pid) for name, pid in pids.items() if pid is not None}
        self._last = {name: facts for name, facts in found.items() if facts is not None}
        self._samples.write("sample", processes=self._last, lag=self._lag(), busy=psutil.cpu_percent())

    def _lag(self) -> dict[str, int] | None:
        if not self._asking.acquire(blocking=False):
            return None  # the broker is down or coming up
        try:
            if time.monotonic() < self._ask_from:
                return None
            self._lags = self._lags or Lags(self._stack.bootstrap, self._stack.prefix)
            return self._lags.now()
        except KafkaException:
            return None  # it answers again and does not know its groups yet
        finally:
            self._asking.release()


def process_of(pid: int) -> dict[str, float] | None:
    """What one process holds now; None where it has ended."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            used = process.cpu_times()
            return {
                "pid": pid,
                "age_s": round(time.time() - process.create_time(), 1),
                "rss_mb": round(process.memory_info().rss / MIB, 2),
                "fds": process.num_fds(),
                "threads": process.num_threads(),
                "cpu_s": round(used.user + used.system, 2),
            }
    except psutil.Error:
        return None  # it ends as it is looked at
