"""Conservation on a bad network: `python -m tests.faults.network`.

A proxy stands between everything that sends or serves requests and one broker. For ten minutes under a steady load
it resets one in a hundred of the pieces that pass, and in turn adds latency, cuts all connections, leaves
them open without a byte passing, swallows the broker's answers (the request is done, its sender does not
hear of it) and refuses new connections. What a read_committed consumer beside the proxy sees is counted
against what was acknowledged. A control without transactions and without idempotence shows duplicates under
the swallowed answers alone. Prints a table; the last line is JSON. Exit status 1 where a request was lost or
doubled, or where the control doubled nothing.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.chain import Chain
from tests.faults.load import STUCK_S, Borne, Load, Sums, Watch, count, wait_for_all
from tests.faults.suite import Say, Suite, end
from tests.support.proxy import Proxy, Weather
from tests.support.stack import wait_until

from penstock.local.kafka import LocalKafka
from penstock.local.ports import LOOPBACK, free_port

RESETS = 0.01
PHASES = ("latency", "cut", "half-open", "swallow", "refuse")
PHASE_S = (2.0, 6.0)
"""Shortest and longest time of one kind of trouble."""
CALM, CALM_S = 40, 60.0
"""The next one comes once so many new results have come, or after so long; the resets and the load go on meanwhile."""
CONTROL_ROUNDS = 12


@dataclass(frozen=True, kw_only=True)
class Report(Borne):
    """What came of a run."""

    faults: int
    faults_by_kind: dict[str, int]


@contextmanager
def behind_a_proxy(folder: Path) -> Iterator[tuple[str, Proxy]]:
    """A broker with a listener of its own for clients behind the proxy; its direct address, and the proxy."""
    taken: set[int] = set()
    while len(taken) < 4:
        taken.add(free_port(excluding=frozenset(taken)))
    direct, proxied, controller, outside = sorted(taken)
    properties = {
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{direct},PROXIED://{LOOPBACK}:{proxied},"
        f"CONTROLLER://{LOOPBACK}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{direct},PROXIED://{LOOPBACK}:{outside}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "broker.session.timeout.ms": "60000",  # the network is at fault, not a broker that a busy machine holds up
    }
    with (
        LocalKafka(folder, direct, properties=properties, start_limit_s=180) as broker,
        Proxy(proxied, listen=outside) as proxy,
    ):
        yield broker.bootstrap_servers, proxy


def run(
    direct: str,
    proxy: Proxy,
    folder: Path,
    *,
    seconds: float,
    rate: float,
    seed: int,
    phase_s: tuple[float, float] = PHASE_S,
    calm: int = CALM,
    say: Say = lambda _: None,
) -> Report:
    """Send requests at `rate` through `seconds` of bad weather, then let everything arrive, and count.

    Every kind of trouble comes at least once, also where that takes longer, and none after the load has ended.
    """
    began = time.monotonic()
    chosen = random.Random(seed)
    prefix = f"n{uuid.uuid4().hex[:10]}."
    proxy.weather, proxy.faults = Weather(), Counter()
    with (
        Chain(proxy.address, prefix, folder, direct=direct) as chain,
        Watch(direct, prefix) as watch,
        Load(proxy.address, prefix, rate=rate, total=10**9) as load,
    ):
        wait_until(lambda: watch.count() > 0, "a first result", 120)
        bad = time.monotonic()
        order: list[str] = []
        seen: set[str] = set()
        while time.monotonic() - bad < seconds or seen != set(PHASES):
            order = order or chosen.sample(PHASES, len(PHASES))
            phase = order.pop()
            _trouble(proxy, phase, chosen.uniform(*phase_s))
            seen.add(phase)
            proxy.weather = Weather(reset_share=RESETS)
            _calm(watch, calm)
            say(f"{phase}: {watch.count()} of {load.sent} results, faults {sum(proxy.faults.values())}, "
                f"services started again: {chain.restarts}")  # fmt: skip
        proxy.weather = Weather()
        load.finish()
        wait_for_all(load, watch, chain.tails)
        return Report(
            sums=count(direct, prefix, load.acknowledged),
            faults=sum(proxy.faults.values()),
            faults_by_kind=dict(proxy.faults),
            longest_stall_s=round(watch.longest_gap_s, 1),
            service_restarts=chain.restarts,
            seconds=round(time.monotonic() - began, 1),
        )


def _calm(watch: Watch, results: int) -> None:
    until = time.monotonic() + CALM_S
    before = watch.count()
    while watch.count() < before + results and time.monotonic() < until:
        time.sleep(0.2)


def _trouble(proxy: Proxy, phase: str, seconds: float) -> None:
    """One kind of trouble for some seconds, on top of the resets; a mute connection ends in a cut."""
    if phase == "latency":
        proxy.weather = Weather(latency_s=0.05, reset_share=RESETS)
        proxy.faults["spells of latency"] += 1
    elif phase == "half-open":
        proxy.weather = Weather(half_open=True)
        proxy.faults["spells half-open"] += 1
    elif phase == "swallow":
        proxy.weather = Weather(swallow=True, reset_share=RESETS)
    elif phase == "refuse":
        proxy.weather = Weather(refuse=True, reset_share=RESETS)
        proxy.cut()
    elif phase == "cut":
        proxy.cut()
        return
    time.sleep(seconds)
    if phase in ("half-open", "swallow"):
        proxy.weather = Weather(reset_share=RESETS)
        proxy.cut()


def control(direct: str, proxy: Proxy, folder: Path, *, say: Say = lambda _: None) -> Sums:
    """The same count without transactions and idempotence, under swallowed answers until something came twice."""
    prefix = f"k{uuid.uuid4().hex[:10]}."
    proxy.weather, proxy.faults = Weather(), Counter()
    with (
        Chain(proxy.address, prefix, folder, direct=direct, environment={"PENSTOCK_EXACTLY_ONCE": "false"}) as chain,
        Watch(direct, prefix) as watch,
        Load(proxy.address, prefix, rate=20, total=10**9, config={"enable.idempotence": False}) as load,
    ):
        for number in range(1, CONTROL_ROUNDS + 1):
            before = watch.count()
            wait_until(lambda seen=before: watch.count() > seen, "a new result", STUCK_S, tails=chain.tails)  # type: ignore[misc]  # a lambda with a default has no inferred type
            proxy.weather = Weather(swallow=True)
            time.sleep(2)
            proxy.weather = Weather()
            proxy.cut()
            load.pause()
            wait_for_all(load, watch, chain.tails)
            sums = count(direct, prefix, load.acknowledged)
            say(f"control, round {number}: {sums.duplicates} duplicates")
            if sums.duplicates:
                break
            load.resume()
        return sums


def main() -> int:
    """Parse the command line, run, print; 1 where something is lost, doubled or unproven."""
    suite = Suite("network", __doc__)
    suite.option("minutes", 10.0)
    suite.option("rate", 20.0, "requests per second")
    suite.option("seed", 1)
    with suite.running() as running, behind_a_proxy(running.folder / "broker") as (direct, proxy):
        options = running.options
        report = run(
            direct,
            proxy,
            running.folder / "main",
            seconds=options.minutes * 60,
            rate=options.rate,
            seed=options.seed,
            say=running.say,
        )
        careless = control(direct, proxy, running.folder / "control", say=running.say)
    return end(report.summary(careless), held=report.sums.conserved and careless.duplicates > 0)


if __name__ == "__main__":
    sys.exit(main())
