"""From what was measured to figures: medians over repeats, ratios within one run, tables."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks.inference.limits import Asked, prefill_operations
from tests.benchmarks.inference.measuring import PROMPT, Measured
from tests.benchmarks.inference.serving import Run, Served

OURS, GENAI, LLAMACPP, TRANSFORMERS = "penstock", "genai static", "llama.cpp", "transformers"
GOALS: dict[str, tuple[str, float]] = {
    "vs_genai_static": (">=", 1.4),
    "vs_llamacpp": (">=", 1.2),
    "p95_vs_static": ("<=", 0.7),
    "ttft_p95_vs_static": ("<=", 0.3),
    "b1_vs_genai": (">=", 0.9),
    "prefill_vs_llamacpp": (">=", 0.8),
}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latency(runs: Sequence[Run], of: Callable[[Served], float | None], share: float) -> float:
    """A quantile over the requests of a run, seconds, median over runs."""
    return median(quantile([value for each in run.served if (value := of(each)) is not None], share) for run in runs)


def first(served: Served) -> float:
    """Time to first token, seconds."""
    return served.first


def whole(served: Served) -> float:
    """Time to the last token, seconds."""
    return served.latency


def per_token(served: Served) -> float | None:
    """Mean time between tokens, seconds."""
    return served.per_token


def beside(ours: Measured, other: Measured) -> dict[str, float]:
    """Ours in proportion to another: what more is better of (tokens a second), then what less is better of."""
    return {
        "rate": round(ours.rate() / other.rate(), 3),
        "prefill": round(ours.prefill() / other.prefill(), 3),
        "b1": round(ours.decode() / other.decode(), 3),
        "full": round(ours.decode(full=True) / other.decode(full=True), 3),
        "p95": _ratio(ours.poisson, other.poisson, whole),
        "ttft_p95": _ratio(ours.poisson, other.poisson, first),
        "burst_p95": _ratio(ours.burst, other.burst, whole),
        "burst_ttft_p95": _ratio(ours.burst, other.burst, first),
    }


def figures(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Every ratio, and what they are of."""
    ours = measured[OURS]
    static = beside(ours, measured[GENAI])
    found: dict[str, Any] = {
        "vs_genai_static": static["rate"],
        "b1_vs_genai": static["b1"],
        "full_vs_genai": static["full"],
        "prefill_vs_genai": static["prefill"],
        **{f"{name}_vs_static": static[name] for name in ("p95", "ttft_p95", "burst_p95", "burst_ttft_p95")},
        "same_first_token": {
            name: same_first(ours.burst[0], each.burst[0]) for name, each in measured.items() if name != OURS
        },
    }
    if LLAMACPP in measured:
        ratios = beside(ours, measured[LLAMACPP])
        found["vs_llamacpp"] = ratios.pop("rate")
        found |= {f"{name}_vs_llamacpp": ratio for name, ratio in ratios.items()}
    for name, each in measured.items():
        found[name.replace(" ", "_").replace(".", "")] = details(each)
    return found


def shares(ours: Measured, model: Asked, limits: Mapping[str, float]) -> dict[str, Any]:
    """What was reached of the machine's limits: `limits` has bytes and operations a second by name."""
    bandwidth = ours.decode() * model.bytes_per_pass
    operations = ours.prefill() / PROMPT * prefill_operations(model, PROMPT)
    return {
        "bandwidth_share": round(bandwidth / limits["reading"], 3),
        "flops_share": round(operations / limits["product"], 3),
        "kernel_share": round(operations / limits["kernel"], 3),
        "weights_mib_per_pass": round(model.bytes_per_pass / (1 << 20), 1),
        "decode_gb_per_s": round(bandwidth / 1e9, 2),
        "reading_gb_per_s": round(limits["reading"] / 1e9, 2),
        "triad_gb_per_s": round(limits["triad"] / 1e9, 2),
        "prefill_gflop_per_s": round(operations / 1e9, 1),
        "product_gflop_per_s": round(limits["product"] / 1e9, 1),
        "kernel_gflop_per_s": round(limits["kernel"] / 1e9, 1),
    }


def missed(found: Mapping[str, Any]) -> dict[str, str]:
    """Goal -> what was found, of those that were measured and not reached."""
    return {
        name: f"{found[name]} instead of {sign} {goal}"
        for name, (sign, goal) in GOALS.items()
        if name in found and not (found[name] >= goal if sign == ">=" else found[name] <= goal)
    }


def machine() -> dict[str, Any]:
    """Where and with what it ran."""
    return {
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{
            name: found
            for name in ("onnxruntime", "onnxruntime-genai", "llama-cpp-python", "transformers", "torch", "numpy")
            if (found := _version(name))
        },
    }


def show(title: str, measured: Mapping[str, Measured], console: Console) -> None:
    """The tables of one model."""
    work = Table(
        "peer",
        "tokens/s",
        "a processor s",
        "prefill tokens/s",
        "passes/s, 1 row",
        "all rows",
        title=f"{title}: all requests at once, then sizes alone",
    )
    for name, each in measured.items():
        cells = [f"{each.rate():,.1f}", f"{median(run.tokens / run.cpu for run in each.burst):,.1f}"]
        if each.prompt:
            cells += [f"{each.prefill():,.0f}", f"{each.decode():,.1f}", f"{each.decode(full=True):,.1f}"]
        work.add_row(name, *cells)
    console.print(work)
    for kind in ("burst", "poisson"):
        table = Table(
            "peer",
            "time to first token",
            "time per output token",
            "latency",
            title=f"{title}: {'all at once' if kind == 'burst' else 'Poisson process'}, seconds, p50 / p95",
        )
        for name, each in measured.items():
            if runs := getattr(each, kind):
                cells = [
                    f"{latency(runs, of, 0.5):.3f} / {latency(runs, of, 0.95):.3f}" for of in (first, per_token, whole)
                ]
                table.add_row(name, *cells)
        console.print(table)


def details(measured: Measured) -> dict[str, Any]:
    """What was measured of one peer, seconds and a second."""
    found: dict[str, Any] = {"tokens_per_s": round(measured.rate(), 1)}
    if measured.prompt:
        found |= {
            "prefill_tokens_per_s": round(measured.prefill(), 1),
            "b1_tokens_per_s": round(measured.decode(), 2),
            "full_passes_per_s": round(measured.decode(full=True), 2),
        }
    for kind in ("burst", "poisson"):
        if runs := getattr(measured, kind):
            for label, of in (("ttft", first), ("tpot", per_token), ("latency", whole)):
                for share in (0.5, 0.95):
                    found[f"{kind}_{label}_p{round(100 * share)}_s"] = round(latency(runs, of, share), 4)
    return found


def _ratio(ours: Sequence[Run], theirs: Sequence[Run], of: Callable[[Served], float | None]) -> float:
    return round(latency(ours, of, 0.95) / latency(theirs, of, 0.95), 3)


def same_first(ours: Run, theirs: Run) -> float:
    """Share of their requests whose first token is ours too: whether both run the same model."""
    same = [a.tokens[0] == b.tokens[0] for a, b in zip(ours.served, theirs.served, strict=False)]
    return round(sum(same) / len(same), 3)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
