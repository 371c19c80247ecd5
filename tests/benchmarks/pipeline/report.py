"""From the runs of the chains to the figures: medians over repeats, ratios within one run, tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks.pipeline.chain import Drain, Latency

PENSTOCK, BARE, FASTSTREAM = "penstock", "bare", "faststream"
LATENCY_MODE, AT_LEAST_ONCE = "penstock latency mode", "penstock at least once"


@dataclass
class Runs:
    """What was measured of one kind of chain: a list of drains for each repeat, and a latency for each."""

    drains: list[list[Drain]] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)

    def rate(self) -> float:
        """Messages a second of the repeats' largest backlogs, median."""
        return statistics.median(_largest(drains).rate for drains in self.drains)

    def cpu_us(self) -> float:
        """Processor time of the hops for each message and hop, of the largest backlogs, median."""
        return statistics.median(_largest(drains).cpu_us for drains in self.drains)

    def p(self, share: float) -> float:
        """The quantile of the latency over all hops, milliseconds, median over repeats."""
        return statistics.median(quantile(latency.total, share) for latency in self.latencies)

    def hop(self, name: str, share: float) -> float:
        """The same of one hop."""
        return statistics.median(quantile(latency.hops[name], share) for latency in self.latencies)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def figures(runs: Mapping[str, Runs]) -> dict[str, Any]:
    """Every figure, by name."""
    ours, bare, faststream, without = runs[PENSTOCK], runs[BARE], runs[FASTSTREAM], runs[AT_LEAST_ONCE]
    latency = runs[LATENCY_MODE]
    largest = [_largest(drains) for drains in ours.drains]
    smallest = [_smallest(drains) for drains in ours.drains]
    return {
        "messages_per_s": round(ours.rate()),
        "bare_messages_per_s": round(bare.rate()),
        "faststream_messages_per_s": round(faststream.rate()),
        "vs_faststream": round(ours.rate() / faststream.rate(), 1),
        "vs_bare_chain": round(ours.rate() / bare.rate(), 3),
        "cpu_us": round(ours.cpu_us(), 1),
        "bare_cpu_us": round(bare.cpu_us(), 1),
        "faststream_cpu_us": round(faststream.cpu_us(), 1),
        "backlogs": sorted({drain.messages for drains in ours.drains for drain in drains}),
        "cost_growth": round(_ratio([d.cpu_us for d in largest], [d.cpu_us for d in smallest]) - 1, 3),
        "time_growth": round(_ratio([1 / d.rate for d in largest], [1 / d.rate for d in smallest]) - 1, 3),
        "rss_growth_mb": round(statistics.median(_rss_growth(drains) for drains in ours.drains), 1),
        "duplicates": sum(drain.duplicates for drains in ours.drains for drain in drains),
        "p50_ms": round(ours.p(0.5), 2),
        "p99_ms": round(ours.p(0.99), 2),
        "bare_p50_ms": round(bare.p(0.5), 2),
        "bare_p99_ms": round(bare.p(0.99), 2),
        "faststream_p50_ms": round(faststream.p(0.5), 2),
        "faststream_p99_ms": round(faststream.p(0.99), 2),
        "p50_vs_faststream": round(ours.p(0.5) / faststream.p(0.5), 2),
        "latency_mode_messages_per_s": round(latency.rate()),
        "latency_mode_p50_ms": round(latency.p(0.5), 2),
        "latency_mode_p99_ms": round(latency.p(0.99), 2),
        "latency_mode_p50_vs_faststream": round(latency.p(0.5) / faststream.p(0.5), 2),
        "latency_mode_duplicates": sum(drain.duplicates for drains in latency.drains for drain in drains),
        "at_least_once_messages_per_s": round(without.rate()),
        "at_least_once_p50_ms": round(without.p(0.5), 2),
        "at_least_once_p50_vs_faststream": round(without.p(0.5) / faststream.p(0.5), 2),
    }


def machine() -> dict[str, str]:
    """Where and with what it ran."""
    packages = ("confluent-kafka", "faststream", "aiokafka", "pydantic")
    return {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "load_average": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def show(runs: Mapping[str, Runs], console: Console) -> None:
    """The tables."""
    rates = Table("chain", "messages/s", "processor µs a hop", title="drained, five hops")
    times = Table("chain", "p50", "p99", title="added latency, milliseconds", caption="a hop: p50 / p99")
    hops = list(next(iter(runs.values())).latencies[0].hops)
    for name in hops:
        times.add_column(name)
    for kind, one in runs.items():
        rates.add_row(kind, f"{one.rate():,.0f}", f"{one.cpu_us():.1f}")
        steps = [f"{one.hop(name, 0.5):.1f} / {one.hop(name, 0.99):.1f}" for name in hops]
        times.add_row(kind, f"{one.p(0.5):.1f}", f"{one.p(0.99):.1f}", *steps)
    sizes = Table("backlog", "messages/s", "processor µs a hop", "largest hop, MiB", title="penstock, by backlog")
    for number, drain in enumerate(runs[PENSTOCK].drains[0]):
        same = [drains[number] for drains in runs[PENSTOCK].drains]
        sizes.add_row(
            f"{drain.messages:,}",
            f"{statistics.median(d.rate for d in same):,.0f}",
            f"{statistics.median(d.cpu_us for d in same):.1f}",
            f"{statistics.median(max(d.rss_mb.values()) for d in same):.0f}",
        )
    for table in (rates, sizes, times):
        console.print(table)


def _largest(drains: Sequence[Drain]) -> Drain:
    return max(drains, key=lambda drain: drain.messages)


def _smallest(drains: Sequence[Drain]) -> Drain:
    return min(drains, key=lambda drain: drain.messages)


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(above) / statistics.median(below)


def _rss_growth(drains: Sequence[Drain]) -> float:
    """Of the hop that grew most, from the second largest backlog to the largest, MiB."""
    *_, before, after = sorted(drains, key=lambda drain: drain.messages)
    return max(after.rss_mb[name] - before.rss_mb[name] for name in after.rss_mb)
