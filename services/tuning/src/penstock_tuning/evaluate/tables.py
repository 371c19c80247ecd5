"""The tables of an evaluation, as rows of text that the terminal and the page both show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from penstock_tuning.evaluate.bootstrap import Estimate
from penstock_tuning.evaluate.figures import MEAN, Figure
from penstock_tuning.evaluate.results import HEADLINES, LINEAR, SCRATCH, SHIPPED, Results, better

NAMES: Mapping[str, str] = {
    "injection_recall_at_1fpr": "attacks found where 1 % of ordinary requests are flagged",
    "injection_recall": "attacks found at the default threshold",
    "ordinary_flagged": "ordinary requests flagged at the default threshold",
    "alarming_flagged": "alarming but ordinary questions flagged",
    "toxicity_auc": "abuse against ordinary requests, AUC",
    "toxicity_auc_within": "abuse against the rest of its own source, AUC",
    "harmful_auc": "harmful against ordinary requests, AUC",
    "pii_name_f1": "names of persons, F1 of exact spans",
    "pii_f1": "all labels of personal data, F1 of exact spans",
    "embedding_spearman": "similarity, Spearman's correlation",
    "embedding_auc": "similarity, AUC",
    "entailment_balanced_accuracy": "entailment, balanced accuracy",
    "entailment_auc": "entailment, AUC",
}
SYSTEMS: Mapping[str, str] = {
    SHIPPED: "with the encoder",
    SCRATCH: "the same without pretraining",
    LINEAR: "linear baseline",
}
PERCENT = frozenset({"injection_recall_at_1fpr", "injection_recall", "ordinary_flagged", "alarming_flagged"})


@dataclass(frozen=True)
class Sheet:
    """A table: the first `texts` columns are text, the others numbers."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


def sheets(results: Results) -> Iterator[Sheet]:
    """The table of all tasks, then one for each metric by source, then speed and the language model."""
    yield summary(results)
    for metric in HEADLINES:
        own = [one for one in results.figures if one.metric == metric and one.group != MEAN]
        if own:
            yield Sheet(NAMES[metric], _head(results, "rows of"), [_row(one, one.group, results) for one in own])
    spans = sorted({one.metric for one in results.figures} - set(HEADLINES))
    for metric in spans:
        own = [one for one in results.figures if one.metric == metric]
        label = metric.removeprefix("pii_").removesuffix("_f1").replace("_", " ")
        yield Sheet(
            f"{label}, F1 of exact spans", _head(results, "rows of"), [_row(one, one.group, results) for one in own]
        )
    if gained := ablations(results):
        yield gained
    if results.speed:
        yield speed(results)
    if results.language:
        yield language(results)


def summary(results: Results) -> Sheet:
    """One row for each metric: every system, and what the first gains over the baseline and over no pretraining."""
    against = [name for name in (LINEAR, SCRATCH) if name in results.systems and name != results.systems[0]]
    shown = [name for name in (SHIPPED, SCRATCH, LINEAR) if name in results.systems]
    head = ["", "rows", *(SYSTEMS[name] for name in shown), *(f"gain over {SYSTEMS[name]}" for name in against)]
    rows = []
    for metric in HEADLINES:
        if figure := results.headline(metric):
            cells = [_cell(metric, figure.values[name]) for name in shown]
            gains = [_gain(metric, figure.gains[name]) for name in against]
            rows.append([NAMES[metric], f"{figure.rows:,}", *cells, *gains])
    return Sheet("All tasks", head, rows)


def ablations(results: Results) -> Sheet | None:
    """What each ingredient gained: the whole model beside one trained without it."""
    without = [name for name in results.systems if name not in (SHIPPED, SCRATCH, LINEAR)]
    if SHIPPED not in results.systems or not without:
        return None
    names = [*([SCRATCH] if SCRATCH in results.systems else []), *without]
    titles = ["pretraining" if name == SCRATCH else name for name in names]
    rows = [
        [NAMES[metric], *(_gain(metric, figure.gains[name]) for name in names)]
        for metric in HEADLINES
        if (figure := results.headline(metric))
    ]
    return Sheet("What each ingredient gained", ["", *titles], rows)


def speed(results: Results) -> Sheet:
    """Tokens a second on one core."""
    found = results.speed
    if found is None:
        raise ValueError("no speed was measured")
    rows = [
        ["the encoder", f"{found.encoder:,.0f}", "1.00"],
        ["this architecture at MiniLM-L6's numbers", f"{found.minilm:,.0f}", f"{found.minilm / found.encoder:.2f}"],
        [
            "this architecture with MiniLM-L6's number of weights",
            f"{found.minilm_plain:,.0f}",
            f"{found.minilm_plain / found.encoder:.2f}",
        ],
    ]
    return Sheet("Throughput", ["int8, one core", "tokens/s", "of the encoder's"], rows)


def language(results: Results) -> Sheet:
    """Perplexity by group of held-out text."""
    rows = [
        [name, f"{row['tokens']:,.0f}", f"{row['perplexity']:.2f}", f"{row['bits_per_byte']:.3f}"]
        for name, row in results.language.items()
    ]
    return Sheet("The language model", ["held-out text", "tokens", "perplexity", "bits per byte"], rows)


def show(results: Results, console: Console) -> None:
    """Print all tables."""
    for sheet in sheets(results):
        table = Table(title=sheet.title)
        for at, head in enumerate(sheet.head):
            table.add_column(head, justify="left" if at < sheet.texts else "right")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)


def _head(results: Results, first: str) -> list[str]:
    return [first, "rows", *(SYSTEMS.get(name, f"without {name}") for name in results.systems)]


def _row(figure: Figure, name: str, results: Results) -> list[str]:
    cells = (_cell(figure.metric, figure.values[system]) for system in results.systems)
    return [name, f"{figure.rows:,}", *cells]


def _cell(metric: str, one: Estimate) -> str:
    if math.isnan(one.value):
        return "-"
    if metric in PERCENT:
        return f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%})"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _gain(metric: str, one: Estimate) -> str:
    """A difference with its interval; marked where it is sure."""
    if math.isnan(one.value):
        return "-"
    sure = {True: " better", False: " worse", None: ""}[better(metric, one)]
    if metric in PERCENT:
        return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f}){sure}"
    return f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f}){sure}"
