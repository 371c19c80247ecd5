"""The page of an evaluation, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock_tuning.evaluate.bootstrap import LEVEL
from penstock_tuning.evaluate.figures import FEWEST
from penstock_tuning.evaluate.results import LINEAR, SCRATCH, SHIPPED, Results
from penstock_tuning.evaluate.speed import ROWS, TOKENS
from penstock_tuning.evaluate.tables import Sheet, sheets


def write(results: Results, out: Path, machine: Mapping[str, Any]) -> None:
    """Write the page; `machine` is `hardware()`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(_page(results, machine)) + "\n", "utf-8")


def _page(results: Results, machine: Mapping[str, Any]) -> Iterator[str]:
    yield "# The models on sources that training never saw"
    yield ""
    yield (
        "Written by `make eval-models REPORT=docs/benchmarks/models.md`; how the models are made: "
        "[training](../tuning.md), what the sources are: [the manifest](../tuning.md#the-manifest)."
    )
    yield ""
    yield from _how(results)
    for sheet in sheets(results):
        yield ""
        yield f"## {sheet.title[0].upper()}{sheet.title[1:]}"
        yield ""
        if note := _note(sheet.title, results):
            yield note
            yield ""
        yield from _table(sheet)
    yield ""
    yield "## Where and how long"
    yield ""
    took = ", ".join(f"{name} {value:.0f} s" for name, value in results.seconds.items())
    yield (
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}. Seconds of the clock, with "
        f"whatever was kept from an earlier run: {took}."
    )


def _how(results: Results) -> Iterator[str]:
    yield "## What is compared"
    yield ""
    if SHIPPED in results.systems:
        yield f"- *with the encoder*: the finished folder of heads ({results.megabytes[SHIPPED]} MB in int8)."
    else:
        yield "- No finished folder of heads was at hand: these are the figures that one has to beat."
    if SCRATCH in results.systems:
        yield "- *without pretraining*: the same network and heads trained from random weights on the same rows."
    if LINEAR in results.systems:
        yield (
            "- *linear baseline*, trained on the same split: logistic regressions over hashed character and word "
            "n-grams by segment (safety), over features of a token and its neighbours with Viterbi's algorithm "
            "(personal data), over overlap of words, numbers and negations (entailment); cosine of n-grams weighted "
            "by rarity (similarity). Its thresholds are chosen on validation sources."
        )
    yield (
        f"- In brackets: {LEVEL:.0%} intervals by the bootstrap. Drawn are documents within each source; systems see "
        "the same draws, so that a gain has an interval of its own; *better* or *worse* where it leaves out zero."
    )
    yield (
        f"- A mean is over public sources of {FEWEST} rows and more, each counting the same. Generated text is in the "
        "tables by source, not in the means. Ordinary requests count by row."
    )
    yield (
        "- Similarity: labels are yes or no, half of the pairs each, so that no score without ties correlates with "
        "more than 0.866. Sources of the validation split, whose pairs that are not alike are of two documents, are "
        "shown and in no mean."
    )
    yield (
        "- An attack is found where `injection` or `jailbreak` is; a request is flagged where any label reaches its "
        "threshold. Of abuse the higher of `toxicity` and `hate` counts. Rows: "
        + ", ".join(f"{task} {count:,}" for task, count in results.rows.items())
        + "."
    )


def _note(title: str, results: Results) -> str:
    if title == "Throughput" and results.speed:
        found = results.speed
        return (
            f"Batches of {ROWS} rows of {TOKENS} tokens, ONNX Runtime with one thread, processor time, median of runs "
            "that take turns. MiniLM-L6 has 6 layers of width 384, 12 heads and two matrices of 1,536 in each "
            "feed-forward; this architecture's gated unit has three, so the second row does more work than MiniLM-L6 "
            "and the third as much. The best measured rate of int8 products is "
            f"{found.int8_limit:.1f}e9 multiply-adds a second, that of attention's in fp32 {found.float_limit:.1f}e9: "
            f"at these rates the encoder's products would take {found.share:.0%} of the time that it takes."
        )
    if title == "What each ingredient gained":
        return "The figure of the whole model less that of one trained without the ingredient."
    return ""


def _table(sheet: Sheet) -> Iterator[str]:
    yield "| " + " | ".join(sheet.head) + " |"
    yield "| " + " | ".join("---" if at < sheet.texts else "---:" for at in range(len(sheet.head))) + " |"
    for row in sheet.rows:
        yield "| " + " | ".join(row) + " |"
