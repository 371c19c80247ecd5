"""JSON held to schemas: `python -m tests.benchmarks.constrained`.

Requests with twenty schemas go through the embedded model and the engine, several rows together, greedy and sampled.
Each whole answer is checked against its schema by jsonschema, formats included, and by what checks it in postprocess;
those cut off by `max_tokens` are counted apart. The same requests then run unconstrained, each for as many tokens as
its constrained answer had, in turns with the constrained ones. Prints a table; the last line is JSON. Exit status 1
where a whole answer breaks its schema.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
from jsonschema import Draft202012Validator
from rich.console import Console
from rich.table import Table
from tests.benchmarks.constrained.formats import CHECKER
from tests.benchmarks.constrained.requests import MODEL, Answer, answer, backend, free, output_of, requests
from tests.benchmarks.constrained.schemas import CASES, Case

from penstock.contracts.errors import PenstockError
from penstock_inference.backend import GenerationRequest
from penstock_inference.constraints import Grammars, JsonConstraint
from penstock_inference.layout import ModelLayout
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits, OnnxRunner
from penstock_postprocess import structured

Work = list[tuple[Case, GenerationRequest]]


@dataclass
class Tally:
    """What became of the requests of one schema."""

    requests: int = 0
    valid: int = 0
    truncated: int = 0
    refused_after: int = 0
    """Valid, and yet refused by postprocess."""
    tokens: int = 0
    invalid: list[str] = field(default_factory=list)
    """The answers that break the schema."""


def judge(work: Work, answers: Mapping[int, Answer]) -> dict[str, Tally]:
    """Case -> what became of its requests. A request without an answer counts as one that is invalid."""
    tallies = {case.name: Tally() for case in CASES}
    for case, request in work:
        tally = tallies[case.name]
        tally.requests += 1
        one = answers.get(request.key)
        if one is None:
            tally.invalid.append("")
            continue
        tally.tokens += one.tokens
        if one.finish_reason == "length":
            tally.truncated += 1
        elif not follows(one.text, case.schema):
            tally.invalid.append(one.text)
        else:
            tally.valid += 1
            tally.refused_after += not passes(one.text, case.schema)
    return tallies


def follows(text: str, schema: dict[str, Any]) -> bool:
    """Whether a text is JSON that follows the schema, formats included."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(Draft202012Validator(schema, format_checker=CHECKER).is_valid(value))


def passes(text: str, schema: dict[str, Any]) -> bool:
    """Whether postprocess takes the text as it is."""
    try:
        value, repair = structured.parse(text, scalars=True)
        structured.check(value, schema)
    except PenstockError:
        return False
    return repair is None


def compile_ms(repeats: int = 5) -> dict[str, float]:
    """Case -> the time in which its grammar is made, the median of several."""
    layout = ModelLayout.read(MODEL)
    tokenizer = (MODEL / "tokenizer.json").read_text(encoding="utf-8")
    size = OnnxRunner(layout, Limits(rows=1)).vocabulary_size
    taken: dict[str, list[float]] = {case.name: [] for case in CASES}
    for _ in range(repeats):
        grammars = Grammars(tokenizer, size, layout.eos_ids)
        for case in CASES:
            began = time.perf_counter()
            grammars.of(output_of(case))
            taken[case.name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


@contextmanager
def timed() -> Iterator[list[float]]:
    """Microseconds of processor time that the constraint takes for each token, all its calls together."""
    taken: list[float] = []
    spent: Counter[int] = Counter()

    def timing(method: Callable[..., Any], *, last: bool = False) -> Callable[..., Any]:
        def call(self: JsonConstraint, *arguments: int) -> Any:
            began = time.thread_time_ns()
            result = method(self, *arguments)
            spent[id(self)] += time.thread_time_ns() - began
            if last:
                taken.append(spent.pop(id(self)) / 1000)
            return result

        return call

    with (
        patch.object(JsonConstraint, "allows", timing(JsonConstraint.allows)),
        patch.object(JsonConstraint, "allowed", timing(JsonConstraint.allowed)),
        patch.object(JsonConstraint, "accept", timing(JsonConstraint.accept, last=True)),
    ):
        yield taken


@dataclass(frozen=True)
class Round:
    """Tokens a second of the same prompts and numbers of tokens, constrained and not; and of processor time."""

    held: float
    free: float
    held_cpu: float
    free_cpu: float


def compare(work: Work, held: LocalBackend, loose: LocalBackend) -> Round:
    """One round of both."""
    constrained = [request for _, request in work]
    found, seconds, cpu = answer(held, constrained)
    tokens = sum(one.tokens for one in found.values())
    bare, bare_seconds, bare_cpu = answer(loose, [free(each, found[each.key].tokens) for each in constrained])
    bare_tokens = sum(one.tokens for one in bare.values())
    return Round(tokens / seconds, bare_tokens / bare_seconds, tokens / cpu, bare_tokens / bare_cpu)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.constrained", description="JSON held to schemas")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison with unconstrained requests")
    options = parser.parse_args()
    work = list(requests(options.requests))
    held, loose = (backend(rows=options.rows, threads=options.threads, ends=ends) for ends in (True, False))
    with timed() as masks:
        answers, _, _ = answer(held, [request for _, request in work])
    tallies = judge(work, answers)
    rounds = [compare(work, held, loose) for _ in range(options.rounds)]
    compiled = compile_ms()
    show(tallies, compiled)
    invalid = [text for tally in tallies.values() for text in tally.invalid]
    for text in invalid[:10]:
        print(f"invalid: {text}", file=sys.stderr)
    figures = {
        "requests": sum(tally.requests for tally in tallies.values()),
        "schemas": len(CASES),
        "valid": sum(tally.valid for tally in tallies.values()),
        "invalid": len(invalid),
        "truncated": sum(tally.truncated for tally in tallies.values()),
        "refused_after": sum(tally.refused_after for tally in tallies.values()),
        "tokens": sum(tally.tokens for tally in tallies.values()),
        "tokens_per_s": round(statistics.median(one.held for one in rounds), 1),
        "free_tokens_per_s": round(statistics.median(one.free for one in rounds), 1),
        "slowdown": round(statistics.median(one.free / one.held for one in rounds), 3),
        "slowdown_cpu": round(statistics.median(one.free_cpu / one.held_cpu for one in rounds), 3),
        "compile_ms_p50": round(statistics.median(compiled.values()), 2),
        "compile_ms_max": round(max(compiled.values()), 2),
        "mask_us_p50": round(float(np.percentile(masks, 50)), 1),
        "mask_us_p99": round(float(np.percentile(masks, 99)), 1),
        "mask_us_max": round(max(masks), 1),
        "rows": options.rows,
        "threads": options.threads,
        "model": ModelLayout.read(MODEL).digest(),
    }
    print(json.dumps(figures))
    return 1 if invalid or figures["refused_after"] else 0


def show(tallies: Mapping[str, Tally], compiled: Mapping[str, float]) -> None:
    """One row for each schema."""
    table = Table("schema", "requests", "valid", "cut off", "invalid", "tokens each", "grammar made in")
    for name, tally in tallies.items():
        table.add_row(
            name,
            str(tally.requests),
            str(tally.valid),
            str(tally.truncated),
            str(len(tally.invalid)),
            f"{tally.tokens / max(1, tally.requests):.0f}",
            f"{compiled[name]:.2f} ms",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
