"""The inference engine beside its peers: `python -m tests.benchmarks.inference`, in `.venv-bench`.

Two models: Qwen2.5-0.5B's configuration with random weights in int4, and the embedded one. Each peer has a process of
its own; they take turns. onnxruntime-genai runs the same files as the engine, in static batches; llama.cpp the same
weights in Q4_0 with its continuous batching, where it is installed, and not the embedded model; transformers, which is
slow, one static batch of the first requests. Prints tables; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from tests.benchmarks.inference import gpu, making
from tests.benchmarks.inference.limits import Machine, asked
from tests.benchmarks.inference.measuring import Measured, Work, take_turns
from tests.benchmarks.inference.peers.genai import Genai
from tests.benchmarks.inference.peers.llamacpp import LlamaCpp
from tests.benchmarks.inference.peers.ours import Ours
from tests.benchmarks.inference.peers.transformers import Transformers
from tests.benchmarks.inference.report import (
    GENAI,
    LLAMACPP,
    OURS,
    TRANSFORMERS,
    figures,
    machine,
    missed,
    same_first,
    shares,
    show,
)
from tests.benchmarks.inference.seats import Seat
from tests.benchmarks.inference.workload import requests

EMBEDDED_VOCABULARY = 6144
QUICK_REQUESTS = 24


def measure(
    console: Console,
    title: str,
    seats: Mapping[str, Seat],
    work: Work,
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """One model: what was measured, and its figures."""
    measured, rate = take_turns(seats, work, GENAI, lambda line: console.print(f"{title}: {line}", highlight=False))
    return measured, figures(measured) | {"poisson_per_s": round(rate, 3), "repeats": work.repeats}


def large(console: Console, options: argparse.Namespace) -> dict[str, Any]:
    """The configuration of 0.5B parameters, all peers, and the machine's limits."""
    subprocess.run([sys.executable, "-m", "tests.benchmarks.inference.making"], check=True)
    base = making.folder()
    title = "Qwen2.5-0.5B, int4, random weights"
    vocabulary = making.CONFIG["vocab_size"]
    work = _work(options, vocabulary)
    with Seat(Machine, options.threads) as seat:
        limits = {name: seat.call(name) for name in ("reading", "triad", "product", "kernel")}
    with ExitStack() as stack:
        seats = {
            OURS: stack.enter_context(Seat(Ours, base / "int4", options.rows, options.threads)),
            GENAI: stack.enter_context(Seat(Genai, base / "int4", options.rows, options.threads)),
        }
        if find_spec("llama_cpp"):
            seats[LLAMACPP] = stack.enter_context(Seat(LlamaCpp, base / "q4_0.gguf", options.rows, options.threads))
        else:
            console.print("llama.cpp is left out: llama-cpp-python is not installed")
        measured, found = measure(console, title, seats, work)
    with Seat(Transformers, base / "hf", options.rows, options.threads) as seat:
        slow = seat.call("serve", work.burst[: options.rows])
    console.print(f"{title}: {TRANSFORMERS} {slow.rate:,.1f} tokens/s, one batch of {options.rows}", highlight=False)
    found["same_first_token"][TRANSFORMERS] = same_first(measured[OURS].burst[0], slow)
    show(title, measured | {TRANSFORMERS: Measured(burst=[slow])}, console)
    return (
        found
        | shares(measured[OURS], asked(base / "int4"), limits)
        | {
            "vs_transformers": round(measured[OURS].rate() / slow.rate, 2),
            "transformers": {"tokens_per_s": round(slow.rate, 1), "requests": options.rows},
        }
    )


def embedded(console: Console, options: argparse.Namespace) -> dict[str, Any]:
    """The model that is shipped, beside genai."""
    work = _work(options, EMBEDDED_VOCABULARY)
    given = (making.EMBEDDED, options.rows, options.threads)
    with Seat(Ours, *given) as ours, Seat(Genai, *given) as genai:
        measured, found = measure(console, "penstock-lm", {OURS: ours, GENAI: genai}, work)
    show("penstock-lm, int8", measured, console)
    return found


def _work(options: argparse.Namespace, vocabulary: int) -> Work:
    return Work(requests(options.requests, vocabulary), vocabulary, options.rows, options.repeats, options.load)


def main() -> int:
    parser = argparse.ArgumentParser(description="Tokens a second and latency of the inference engine and its peers.")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--rows", type=int, default=8, help="most rows at once, of every peer")
    parser.add_argument("--threads", type=int, default=2, help="of every peer")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--load",
        type=float,
        default=0.8,
        help="of the Poisson process, as a share of the requests a second that static batches serve at once",
    )
    parser.add_argument("--model", choices=("large", "embedded", "both"), default="both")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REQUESTS} requests")
    options = parser.parse_args()
    if options.quick:
        options.requests = QUICK_REQUESTS
    # the libraries of every peer read these when they are loaded
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads)),
    }
    console = Console(width=120)
    found: dict[str, Any] = {}
    if options.model != "embedded":
        found |= large(console, options)
    if options.model != "large":
        found["embedded"] = embedded(console, options)
    if reason := gpu.absent():
        console.print(f"not run on a GPU: {reason}", highlight=False)
        found["gpu"] = {"not_run": reason}
    else:
        found["gpu"] = gpu.measure(console, _work(options, making.CONFIG["vocab_size"]), options.threads)
    misses = missed(found) | {f"embedded {name}": line for name, line in missed(found.get("embedded", {})).items()}
    for name, line in misses.items():
        console.print(f"missed: {name} {line}", highlight=False)
    settings = {name: getattr(options, name) for name in ("requests", "rows", "threads", "load")}
    print(json.dumps(found | {"missed": sorted(misses)} | settings | machine()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
