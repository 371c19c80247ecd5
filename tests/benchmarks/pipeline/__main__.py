"""The whole path, beside its peers: `python -m tests.benchmarks.pipeline`.

Chains of the same five hops on one broker: Penstock's runtime exactly once, and in its latency mode, at least once
between the stages and without repeats at the end; confluent-kafka by hand and FastStream's handlers, both at least
once; and Penstock's without transactions, for what those cost. Each repeat starts each chain anew, times single
requests and drains backlogs through it. Then `lanes` has its turn. Prints tables; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from tests.benchmarks.pipeline import lanes
from tests.benchmarks.pipeline.chain import Chain
from tests.benchmarks.pipeline.report import (
    AT_LEAST_ONCE,
    BARE,
    FASTSTREAM,
    LATENCY_MODE,
    PENSTOCK,
    Runs,
    figures,
    machine,
    show,
)

from penstock.local import LocalKafka

ENVIRONMENTS = {
    PENSTOCK: {},
    LATENCY_MODE: {"PENSTOCK_INTERACTIVE_DELIVERY": "at_least_once"},
    AT_LEAST_ONCE: {"PENSTOCK_EXACTLY_ONCE": "false"},
}
"""Chain of our own -> what its services are told."""

FULL = (10_000, 100_000, 1_000_000)
PEER_BACKLOG = 100_000
"""Most that the other chains drain: their rates are compared, not how they grow."""
WARM_UP_REQUESTS = 200


def measure(
    bootstrap: str,
    folder: Path,
    *,
    repeats: int,
    backlogs: Sequence[int],
    faststream_backlog: int,
    rate: float,
    requests: int,
    console: Console,
) -> dict[str, Runs]:
    """Kind of chain -> what was measured; the kinds take turns."""
    with Chain(PENSTOCK, bootstrap, folder) as chain:  # the broker compiles what it uses often: not in our time
        chain.latency(rate, WARM_UP_REQUESTS)
        chain.drain(lanes.WARM_UP_BACKLOG)
    runs = {kind: Runs() for kind in (PENSTOCK, LATENCY_MODE, AT_LEAST_ONCE, BARE, FASTSTREAM)}
    for repeat in range(repeats):
        for kind, one in runs.items():
            sizes = {PENSTOCK: backlogs, FASTSTREAM: [faststream_backlog]}.get(kind, [min(backlogs[-1], PEER_BACKLOG)])
            run_as = PENSTOCK if kind in ENVIRONMENTS else kind
            with Chain(run_as, bootstrap, folder, ENVIRONMENTS.get(kind, {})) as chain:
                one.latencies.append(chain.latency(rate, requests))
                one.drains.append([chain.drain(size) for size in sizes])
            drained = ", ".join(f"{d.messages:,} at {d.rate:,.0f}/s" for d in one.drains[-1])
            console.print(f"repeat {repeat + 1} of {repeats}: {kind} {drained}", highlight=False)
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description="Messages a second and latency of five hops.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backlog", default="10000,50000", help="sizes, ascending; at least two")
    parser.add_argument("--faststream-backlog", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=20, help="requests a second, for latency")
    parser.add_argument("--requests", type=int, default=300, help="requests timed in each repeat")
    parser.add_argument("--full", action="store_true", help="backlogs up to a million")
    parser.add_argument("--no-lanes", action="store_true", help="leave out lanes and tenants")
    options = parser.parse_args()
    backlogs = FULL if options.full else tuple(int(size) for size in options.backlog.split(","))
    if len(backlogs) < 2:
        parser.error("--backlog: two sizes at least, such as 10000,50000")
    console = Console(width=120)
    broker = LocalKafka(profile="full")
    with tempfile.TemporaryDirectory() as folder:
        broker.start()
        try:
            runs = measure(
                broker.bootstrap_servers,
                Path(folder),
                repeats=options.repeats,
                backlogs=backlogs,
                faststream_backlog=options.faststream_backlog,
                rate=options.rate,
                requests=options.requests,
                console=console,
            )
            rounds = max(2, options.repeats)
            beside = None if options.no_lanes else lanes.measure(broker.bootstrap_servers, Path(folder), rounds=rounds)
        finally:
            broker.stop()
    show(runs, console)
    if beside is not None:
        lanes.show(console, beside)
    print(json.dumps({**figures(runs), **(asdict(beside) if beside is not None else {}), **machine()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
