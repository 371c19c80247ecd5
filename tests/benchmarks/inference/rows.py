"""An engine alone: `python -m tests.benchmarks.inference.rows`, one request at a time against rows that run together.

`--engine genai`: onnxruntime-genai as the service runs it, in turn. Rates by processor time stand beside those by wall
time, because other work on the machine disturbs the latter. Takes what `.venv` has, on the embedded model; the last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from tests.benchmarks.inference.peers.ours import Ours, OursInTurn
from tests.benchmarks.inference.report import first, latency, machine
from tests.benchmarks.inference.serving import Run
from tests.benchmarks.inference.workload import requests

ROOT = Path(__file__).parents[3]
PROMPTS = (16, 128)
ANSWERS = (32, 128)
ENGINES = {"penstock": Ours, "genai": OursInTurn}


def main() -> int:
    parser = argparse.ArgumentParser(description="The inference engine by numbers of rows")
    parser.add_argument("--model", type=Path, default=ROOT / "deploy" / "models" / "penstock-lm")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", choices=tuple(ENGINES), default="penstock")
    options = parser.parse_args()
    engines = {rows: ENGINES[options.engine](options.model, rows, options.threads) for rows in options.rows}
    vocabulary = engines[options.rows[0]].vocabulary
    work = requests(options.requests, vocabulary, prompts=PROMPTS, answers=ANSWERS)
    runs: dict[int, list[Run]] = {rows: [] for rows in engines}
    for engine in engines.values():
        engine.serve(work[:2])
    for _ in range(options.repeats):
        for rows, engine in engines.items():
            runs[rows].append(engine.serve(work))
    found = {
        rows: {
            "tokens_per_s": round(median(run.rate for run in each), 1),
            "tokens_per_cpu_s": round(median(run.tokens / run.cpu for run in each), 1),
            "first_token_p50_ms": round(1000 * latency(each, first, 0.5), 1),
            "first_token_p95_ms": round(1000 * latency(each, first, 0.95), 1),
        }
        for rows, each in runs.items()
    }
    table = Table(
        *("rows", "tokens/s", "ratio", "tokens/processor s", "first token p50, ms", "p95, ms"),
        title=f"{options.model.name}, engine {options.engine}: {options.requests} requests, {options.threads} threads",
    )
    base = found[options.rows[0]]["tokens_per_s"]
    for rows, row in found.items():
        rate, *others = row.values()
        table.add_row(str(rows), f"{rate:,.1f}", f"{rate / base:.2f}", *(f"{value:,.1f}" for value in others))
    Console(width=120).print(table)
    settings = {name: getattr(options, name) for name in ("engine", "requests", "threads")}
    print(json.dumps(settings | {"rows": found} | machine()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
