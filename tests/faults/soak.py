"""An hour of mixed load and faults: `python -m tests.faults.soak`.

Interactive requests, streams, bulk lines, conversations of several tenants, deadlines, cancellations and bad
inputs go through the five services, while services are killed, terminated and halted one after another and,
with `--kill-broker`, the broker goes down twice. Every few seconds memory, descriptors, threads and lag are
written to a file, from which a page with plots is made (`--from` makes it again, also of a run that was cut
off). The last line is JSON. Exit status 1 where a request was lost or ended twice or wrongly, or where
something grew that must be flat (`tests/faults/soaking/flatness.py` says what that is).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
import urllib.error
import uuid
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from tests.faults.soaking.faults import TRANSACTION_TIMEOUT_S, Culprit, plan
from tests.faults.soaking.outcome import outcome
from tests.faults.soaking.page import write_page
from tests.faults.soaking.sampling import PARTITIONS, Sampler, Samples
from tests.faults.soaking.traffic import OVERDUE_S, Tally, Traffic
from tests.support.stack import SERVICES, Stack, saying

from penstock.local import LocalKafka
from penstock.local.errors import LocalStackError
from penstock.local.ports import free_port
from penstock.local.root import project_root

SETTLE_S = 600.0
"""Longest wait for the results still due after the load; no new one for `OVERDUE_S` ends it sooner."""
IDLE_S = 240.0
"""The lag that is left so long after the last result is the run's lag at the end."""
STATE_MAX_ENTRIES = 2_000
"""Of a service's state: a bound that is reached in the warm-up, so that what is bounded shows as flat."""
SAMPLE_EVERY_S = 5.0
FAULT_EVERY_S = 40.0
DEFAULT_RATE = 10.0

Say = Callable[[str], None]


def run(
    bootstrap: str,
    broker: LocalKafka | None,
    folder: Path,
    samples: Samples,
    *,
    seconds: float,
    rate: float,
    seed: int,
    fault_every_s: float = FAULT_EVERY_S,
    sample_every_s: float = SAMPLE_EVERY_S,
    minute_s: float = 60.0,
    kill_broker: bool = False,
    say: Say = lambda _: None,
) -> None:
    """Load and faults for `seconds`, then wait for what is due; all that is seen goes to `samples`.

    With `kill_broker` the broker, which must be given then, is killed twice, too.
    """
    prefix = f"e{uuid.uuid4().hex[:10]}."
    faults = plan(seconds, seed, every_s=fault_every_s, broker=kill_broker)
    environment = {
        "PENSTOCK_STATE_MAX_ENTRIES": str(STATE_MAX_ENTRIES),
        "PENSTOCK_TRANSACTION_TIMEOUT_MS": str(1_000 * TRANSACTION_TIMEOUT_S),
    }
    with ExitStack() as open_until_end:
        stack = open_until_end.enter_context(
            Stack(bootstrap, prefix, folder, partitions=PARTITIONS, environment=environment)
        )
        say(f"five services up; {len(faults)} faults to come")
        samples.begin(
            minutes=seconds / 60, rate=rate, seed=seed, cores=os.cpu_count(), partitions=PARTITIONS,
            sample_every_s=sample_every_s, state_max_entries=STATE_MAX_ENTRIES,
            fault_every_s=fault_every_s, date=datetime.now(UTC).date().isoformat(),
            machine=platform.machine(), python=platform.python_version(), kill_broker=kill_broker,
        )  # fmt: skip
        sampler = open_until_end.enter_context(Sampler(stack, lambda: _pid_of(broker), samples, sample_every_s))
        traffic = open_until_end.enter_context(Traffic(bootstrap, prefix, rate=rate, seed=seed))
        minutes = Minutes(traffic, sampler, samples, say=say, every_s=minute_s)

        culprit = Culprit(stack, broker)
        while faults or samples.now() < seconds:
            if faults and samples.now() >= faults[0].at_s:
                fault = faults.pop(0)
                with sampler.without_lag() if fault.service == "broker" else nullcontext():
                    began = round(samples.now(), 2)
                    well = culprit.do(fault)
                samples.write(
                    "fault", began=began, fault=fault.what, service=fault.service, seconds=fault.seconds, well=well
                )
            _revive(culprit, samples, say)
            minutes.tell()
            time.sleep(0.2)
        say("the load ends; waiting for what is due")
        traffic.finish()
        _wait_for_all(traffic, lambda: _revive(culprit, samples, say))
        minutes.tell(last=True)
        lag = _idle(stack, lambda: _revive(culprit, samples, say))
        time.sleep(3)  # a second result of a request would come now
        samples.write(
            "end",
            **facts_of(tally := traffic.tally()),
            lost=tally.waiting,
            dead_letters=len(stack.dead_letters()),
            lag_end=lag,
        )


class Minutes:
    """A line for people and one for the file, each minute."""

    def __init__(self, traffic: Traffic, sampler: Sampler, samples: Samples, *, say: Say, every_s: float) -> None:
        self._traffic = traffic
        self._sampler = sampler
        self._samples = samples
        self._say = say
        self._every_s = every_s
        self._number = 0
        self._before = 0

    def tell(self, *, last: bool = False) -> None:
        """Write both lines where a minute is over."""
        if self._samples.now() < (self._number + 1) * self._every_s and not last:
            return
        self._number += 1
        tally = self._traffic.tally()
        latencies = sorted(self._traffic.latencies())
        self._samples.write("minute", number=self._number, **facts_of(tally), latencies_ms=latencies)
        middle = latencies[len(latencies) // 2] if latencies else "-"
        late = latencies[int(0.95 * (len(latencies) - 1))] if latencies else "-"
        memory = " ".join(f"{facts['rss_mb']:.0f}" for facts in self._sampler.last().values())
        self._say(
            f"minute {self._number}: {tally.ended} of {tally.sent} requests ended ({tally.ended - self._before} new), "
            f"{tally.waiting} wait, the oldest for {tally.oldest_s:.0f} s; lost so far {tally.overdue}, "
            f"duplicates {tally.duplicates}; p50 {middle} p95 {late} ms; memory {memory} MB"
        )
        self._before = tally.ended


def facts_of(tally: Tally) -> dict[str, object]:
    """A tally as figures of a line."""
    return {
        "sent": tally.sent,
        "acknowledged": tally.acknowledged,
        "refused": tally.refused,
        "ended": tally.ended,
        "waiting": tally.waiting,
        "overdue": tally.overdue,
        "duplicates": tally.duplicates,
        "wrong_end": tally.wrong_end,
        "unpublished": tally.unpublished,
        "held_s": round(tally.held_s, 1),
        "statuses": tally.statuses,
    }


def _pid_of(broker: LocalKafka | None) -> int | None:
    try:
        return broker.pid if broker is not None else None
    except LocalStackError:
        return None  # it is being restarted


def _revive(culprit: Culprit, samples: Samples, say: Say) -> None:
    for tail in culprit.revive():
        samples.write("ended", service=tail.split()[0], log=tail)
        say(f"ended by itself and started again: {tail}")


def _wait_for_all(traffic: Traffic, meanwhile: Callable[[], None]) -> None:
    """Return when every request has a result, or when nothing has come for long: what is missing is lost."""
    last, since = -1, time.monotonic()
    until = since + SETTLE_S
    while (tally := traffic.tally()).waiting and time.monotonic() < until:
        if tally.ended != last:
            last, since = tally.ended, time.monotonic()
        if time.monotonic() - since > OVERDUE_S:
            return
        meanwhile()
        time.sleep(0.2)


def _idle(stack: Stack, meanwhile: Callable[[], None]) -> dict[str, int | None]:
    """Each service's lag by its own word once all are idle, or when time is up; None where it does not say."""
    until = time.monotonic() + IDLE_S
    while True:
        lag = {name: own_lag(stack, name) for name in SERVICES}
        if not any(value != 0 for value in lag.values()) or time.monotonic() > until:
            return lag
        meanwhile()
        time.sleep(0.5)


def own_lag(stack: Stack, service: str) -> int | None:
    """The sum over partitions of what a service says of its lag; None where it is not ready."""
    try:
        if not stack.ready(service):
            return None
        metrics = stack.metrics(service)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
    lines = [line for line in metrics.splitlines() if line.startswith("penstock_consumer_lag_records{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def main() -> int:
    """Parse the command line, run or take what was kept, write the page, print; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=DEFAULT_RATE, help="requests per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-broker", action="store_true", help="kill the one broker, too, twice")
    parser.add_argument("--samples", type=Path, help="file for the samples; .penstock/soak/TIME.jsonl")
    parser.add_argument("--report", type=Path, help="folder for soak.md and its plots; that of the samples")
    parser.add_argument("--from", type=Path, dest="kept", help="make the report of these samples, without a run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that services and broker end too
    say = saying(Console(stderr=True))
    path = options.kept
    if path is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        path = options.samples or project_root() / ".penstock" / "soak" / f"{stamp}.jsonl"
        with tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder, Samples(path) as samples:
            say(f"samples in {path}; logs in {folder}")
            with LocalKafka(Path(folder, "broker"), free_port(), start_limit_s=600) as broker:
                run(
                    broker.bootstrap_servers, broker, Path(folder, "services"), samples,
                    seconds=options.minutes * 60, rate=options.rate, seed=options.seed,
                    kill_broker=options.kill_broker, say=say,
                )  # fmt: skip
    result = outcome(path)
    page = write_page(result, options.report or path.with_suffix(""))
    say(f"report in {page}")
    print(json.dumps(result.summary()))
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
