"""Tokens per second of the inference engine: one request at a time against rows that run together.

    python tests/benchmarks/bench_inference.py [--model FOLDER] [--requests 32] [--threads 1] [--engine genai]

Random prompts and a fixed number of answer tokens (end tokens are ignored), so that all modes do the same
work; the modes take turns `--rounds` times and the median counts. Rates by CPU time stand beside those by
wall time, because other work on the machine disturbs the latter. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from penstock.models.digests import folder_digest
from penstock_inference.engine import Engine, Logits
from penstock_inference.genai.engine import GenaiEngine
from penstock_inference.genai.model import GenaiModel
from penstock_inference.layout import ModelLayout
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.scheduler import Generation

ROOT = Path(__file__).parents[2]
Case = tuple[list[int], int]


def cases(vocabulary: int, count: int) -> list[Case]:
    """Prompts of 16 to 128 tokens, answers of 32 to 128."""
    random = np.random.default_rng(1)
    return [
        (random.integers(10, vocabulary, int(random.integers(16, 129))).tolist(), int(random.integers(32, 129)))
        for _ in range(count)
    ]


def likeliest(_: Generation, logits: Logits) -> int:
    return int(logits.argmax())


def measure(model: OnnxRunner | GenaiModel, work: list[Case]) -> dict[str, float]:
    """One round of all requests, submitted at once."""
    engine = GenaiEngine(model, likeliest) if isinstance(model, GenaiModel) else Engine(model, likeliest)
    for key, (prompt, tokens) in enumerate(work):
        engine.add(Generation(key, prompt, tokens))
    first: dict[int, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    while advanced := engine.step():
        for generation in advanced:
            if generation.tokens:
                first.setdefault(generation.key, time.perf_counter() - wall)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    total = sum(tokens for _, tokens in work)
    return {
        "tokens_per_s": total / wall,
        "tokens_per_cpu_s": total / cpu,
        "first_token_p50_ms": float(np.percentile(list(first.values()), 50)) * 1000,
        "first_token_p95_ms": float(np.percentile(list(first.values()), 95)) * 1000,
    }


def _reserved(model: OnnxRunner | GenaiModel) -> str:
    """MiB that are taken at start."""
    return "-" if isinstance(model, GenaiModel) else str(model.memory_bytes >> 20)


def main() -> None:
    """Measure, print a table, end with one line of JSON."""
    parser = argparse.ArgumentParser(description="Benchmark of the inference engine")
    parser.add_argument("--model", type=Path, default=ROOT / "deploy" / "models" / "penstock-lm")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=["penstock", "genai"], default="penstock")
    options = parser.parse_args()

    def opened(rows: int) -> OnnxRunner | GenaiModel:
        limits = Limits(rows=rows, threads=options.threads)
        if options.engine == "genai":
            return GenaiModel(options.model, limits)
        return OnnxRunner(ModelLayout.read(options.model), limits)

    models = {rows: opened(rows) for rows in options.rows}
    work = cases(next(iter(models.values())).vocabulary_size, options.requests)
    rounds: dict[int, list[dict[str, float]]] = {rows: [] for rows in models}
    for runner in models.values():
        measure(runner, work[:2])
    for _ in range(options.rounds):
        for rows, runner in models.items():
            rounds[rows].append(measure(runner, work))
    results = {
        rows: {name: round(statistics.median(each[name] for each in taken), 1) for name in taken[0]}
        for rows, taken in rounds.items()
    }
    base = results[options.rows[0]]["tokens_per_s"]
    print(
        f"{options.model.name}, {options.engine}: {options.requests} requests, {options.threads} thread(s), "
        f"median of {options.rounds} rounds"
    )
    print(
        f"{'rows':>5} {'tokens/s':>10} {'ratio':>6} {'tokens/CPU s':>13} "
        f"{'first token p50':>16} {'p95':>8} {'cache MiB':>9}"
    )
    for rows, row in results.items():
        print(
            f"{rows:>5} {row['tokens_per_s']:>10} {row['tokens_per_s'] / base:>6.2f} {row['tokens_per_cpu_s']:>13} "
            f"{row['first_token_p50_ms']:>13} ms {row['first_token_p95_ms']:>5} ms "
            f"{_reserved(models[rows]):>6}"
        )
    report: dict[str, Any] = {"model": folder_digest(options.model), "engine": options.engine}
    report |= {"requests": options.requests, "threads": options.threads}
    print(json.dumps({**report, "rows": results}))


if __name__ == "__main__":
    main()
