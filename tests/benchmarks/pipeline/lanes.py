"""Interactive requests beside a bulk backlog, and a small tenant beside a flood of another's.

    python -m tests.benchmarks.pipeline.lanes [--samples 300] [--rate 20] [--backlog 50000] [--rounds 3]

Each ratio compares two phases on one running chain of five processes: single requests at a steady rate alone,
then the same beside the load. The phases alternate and their samples are pooled, so that a machine busy with
other things slows both alike. Only requests sent while the load was there count. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table
from tests.benchmarks.pipeline.chain import STUCK_S, Chain
from tests.benchmarks.pipeline.passing import request
from tests.support.stack import StackError

from penstock.contracts import topics
from penstock.contracts.events import Priority
from penstock.local import broker_for_tests

BACKLOG = 50_000
WARM_UP_BACKLOG = 20_000
"""The broker compiles what it uses often: not in our time."""
SMALL_TENANT_RATE = 3.0
"""Requests a second; with a hundred times as many beside it, broker and services take most of two cores."""
TENANT_LOADS = 100
"""How many times the small tenant's load the large one sends."""
TENANT_SAMPLES = 0.5
"""Share of the samples, which take longer to come at this rate."""


@dataclass
class Ratio:
    """Milliseconds from sending to a readable result, alone and beside the load."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    load_rates: list[float] = field(default_factory=list)
    """Of the load: messages a second, end to end, in each round."""

    @property
    def p95(self) -> float:
        """The 95th percentile beside the load over that alone."""
        return p95(self.beside) / p95(self.alone)


class Arrivals:
    """Reads results in a thread of its own: when each request whose id begins with `mark` had one."""

    def __init__(self, chain: Chain, mark: str) -> None:
        self._reader = chain._reader([topics.RESULTS])
        self._mark = mark.encode()
        self._stop = threading.Event()
        self.at: dict[bytes, float] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            first = self._reader.poll(0.1)
            messages = [] if first is None else [first, *self._reader.consume(5_000, 0)]
            now = time.perf_counter()
            for message in messages:
                if message.error() is None and message.key().startswith(self._mark):
                    self.at.setdefault(message.key(), now)

    def wait(self, count: int, chain: Chain) -> None:
        """Wait until so many have arrived; raises StackError where none does for a minute."""
        last, seen = time.monotonic(), -1
        while len(self.at) < count:
            if len(self.at) != seen:
                last, seen = time.monotonic(), len(self.at)
            elif time.monotonic() - last > STUCK_S:
                raise StackError(f"{seen} of {count} results of {self._mark.decode()}\n{chain._logs()}")
            time.sleep(0.02)

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()


def singles(
    chain: Chain, mark: str, rate: float, count: int, *, loaded: Callable[[], bool] = lambda: True
) -> list[float]:
    """Send `count` requests at a steady rate; the milliseconds of those sent while `loaded`."""
    producer = Producer({"bootstrap.servers": chain.bootstrap, "acks": "all", "linger.ms": 0})
    sent: dict[bytes, float] = {}
    counted: list[bytes] = []
    with Arrivals(chain, mark) as arrivals:
        due = time.perf_counter()
        for number in range(count):
            name = f"{mark}{number}".encode()
            value = request(name.decode(), number)
            time.sleep(max(0.0, due - time.perf_counter()))
            if loaded():
                counted.append(name)
            sent[name] = time.perf_counter()
            producer.produce(f"{chain.prefix}{topics.REQUESTS}", value, name, headers={"tenant": "small"})
            producer.poll(0)
            due = max(due + 1 / rate, time.perf_counter())
        producer.flush(30)
        arrivals.wait(count, chain)
    return [1000 * (arrivals.at[name] - sent[name]) for name in counted]


class Load:
    """Requests of another kind, sent from a thread: as fast as they go, or at a rate until stopped."""

    def __init__(self, chain: Chain, mark: str, *, count: int | None, rate: float | None, lane: Priority) -> None:
        self._chain, self._mark, self._count, self._rate = chain, mark, count, rate
        self._topic = f"{chain.prefix}{topics.in_lane(topics.REQUESTS, lane)}"
        self._sent = 0
        self._stop = threading.Event()
        self._all_sent = threading.Event()
        self._arrivals = Arrivals(chain, mark)
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    @property
    def there(self) -> bool:
        """Whether more is to come: still being sent, or not all answered."""
        return not self._all_sent.is_set() or len(self._arrivals.at) < self._sent

    def sent(self) -> None:
        """Wait until all of a counted load is in the topic."""
        assert self._count is not None
        self._all_sent.wait()

    def end(self) -> float:
        """Stop sending, wait for all results; messages a second over the whole time."""
        self._stop.set()
        self._thread.join()
        self._arrivals.wait(self._sent, self._chain)
        self._arrivals.__exit__(None, None, None)
        return self._sent / (max(self._arrivals.at.values()) - self._began)

    def _send(self) -> None:
        producer = Producer({"bootstrap.servers": self._chain.bootstrap, "acks": "all", "linger.ms": 20})
        head, tail = request("MARK", 1).split(b"MARK")
        while not self._stop.is_set() if self._count is None else self._sent < self._count:
            name = f"{self._mark}{self._sent}".encode()
            with suppress(BufferError):
                producer.produce(self._topic, head + name + tail, name, headers={"tenant": "large"})
                self._sent += 1
            producer.poll(0)
            if self._rate is not None:
                time.sleep(max(0.0, self._began + self._sent / self._rate - time.perf_counter()))
        producer.flush(60)
        self._all_sent.set()


def beside_backlog(chain: Chain, *, rate: float, samples: int, backlog: int, rounds: int) -> Ratio:
    """Interactive requests alone, and with a backlog in the bulk lane that was queued before the first of them."""
    found = Ratio()
    for turn in range(rounds):
        found.alone += singles(chain, f"alone{turn}-", rate, samples)
        load = Load(chain, f"bulk{turn}-", count=backlog, rate=None, lane="bulk")
        load.sent()
        found.beside += singles(chain, f"beside{turn}-", rate, samples, loaded=lambda load=load: load.there)  # type: ignore[misc]  # a lambda with a default has no inferred type
        found.load_rates.append(load.end())
    return found


def beside_tenant(chain: Chain, *, rate: float, samples: int, rounds: int) -> Ratio:
    """A small tenant's requests alone, and while another sends a hundred times as many into the same lane."""
    found = Ratio()
    for turn in range(rounds):
        found.alone += singles(chain, f"small{turn}-", rate, samples)
        load = Load(chain, f"large{turn}-", count=None, rate=rate * TENANT_LOADS, lane="interactive")
        time.sleep(2)
        found.beside += singles(chain, f"crowded{turn}-", rate, samples)
        found.load_rates.append(load.end())
    return found


def p95(values: Sequence[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


@dataclass
class Figures:
    """What the last line says."""

    interactive_p95_ratio: float
    interactive_p95_alone_ms: float
    interactive_p95_beside_ms: float
    interactive_samples: int
    bulk_per_s: float
    tenant_p95_ratio: float
    tenant_p95_alone_ms: float
    tenant_p95_beside_ms: float
    tenant_samples: int
    large_tenant_per_s: float


def measure(
    bootstrap: str, folder: Path, *, rate: float = 20, samples: int = 300, backlog: int = BACKLOG, rounds: int = 3
) -> Figures:
    """Both ratios, on one chain whose first hop limits the large tenant to five times the small one's rate."""
    with Chain("rated", bootstrap, folder) as chain:
        chain.drain(WARM_UP_BACKLOG)
        lanes = beside_backlog(chain, rate=rate, samples=samples, backlog=backlog, rounds=rounds)
        tenants = beside_tenant(
            chain, rate=SMALL_TENANT_RATE, samples=max(1, round(samples * TENANT_SAMPLES)), rounds=rounds
        )
    return Figures(
        interactive_p95_ratio=round(lanes.p95, 2),
        interactive_p95_alone_ms=round(p95(lanes.alone), 1),
        interactive_p95_beside_ms=round(p95(lanes.beside), 1),
        interactive_samples=len(lanes.beside),
        bulk_per_s=round(statistics.mean(lanes.load_rates)),
        tenant_p95_ratio=round(tenants.p95, 2),
        tenant_p95_alone_ms=round(p95(tenants.alone), 1),
        tenant_p95_beside_ms=round(p95(tenants.beside), 1),
        tenant_samples=len(tenants.beside),
        large_tenant_per_s=round(statistics.mean(tenants.load_rates)),
    )


def show(console: Console, figures: Figures) -> None:
    """A row for each comparison."""
    table = Table("beside", "p95 alone, ms", "p95 beside, ms", "ratio", "samples", "load, messages/s")
    for name, load in (("interactive", figures.bulk_per_s), ("tenant", figures.large_tenant_per_s)):
        values = asdict(figures)
        cells = [values[f"{name}_{key}"] for key in ("p95_alone_ms", "p95_beside_ms", "p95_ratio", "samples")]
        table.add_row({"interactive": "a bulk backlog", "tenant": "a large tenant"}[name], *map(str, [*cells, load]))
    console.print(table)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pipeline.lanes")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--backlog", type=int, default=BACKLOG)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that hops and broker are ended, too
    with broker_for_tests() as broker, tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        figures = measure(broker.bootstrap_servers, Path(folder), **vars(options))
    show(Console(), figures)
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
