"""Commands of the abusive-language classifier: train, export, evaluate, and the figures of the rule detectors."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import structlog
import typer
from numpy.typing import NDArray

from penstock_safety.classifier import SHIPPED, AbuseClassifier
from penstock_safety.features import FeatureSettings, ngram_ids
from penstock_tuning.abuse import measure, rules_report, split
from penstock_tuning.abuse.measure import Scorer

app = typer.Typer(help="The abusive-language classifier of the safety service.", no_args_is_help=True)
log = structlog.get_logger(__name__)

Data = Annotated[Path, typer.Option(envvar="PENSTOCK_DATA", help="Folder with benign/, toxicity/ and injection/.")]
Seed = Annotated[int, typer.Option(help="Of the sampling; the same seed gives the same split.")]
DATA = Path("../shared/data")
RATES = {"flag": 0.01, "block": 0.001}
"""The two false-positive rates on ordinary requests that the scores are anchored at."""


@app.callback()
def setup() -> None:
    """Rows of some sets are longer than the csv module's default limit."""
    csv.field_size_limit(1 << 28)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


@app.command("train")
def train_command(
    out: Annotated[Path, typer.Argument(help="Where to write the weights (.npz).")],
    data: Data = DATA,
    seed: Seed = 7,
    iterations: Annotated[int, typer.Option(help="Most iterations of the optimizer.", min=1)] = 200,
) -> None:
    """Fit the classifier: some four minutes on one core. Needs the extra `abuse`."""
    from penstock_tuning.abuse import train  # noqa: PLC0415  # the other commands work without the extra

    settings = FeatureSettings()
    rows = split.build(data, seed, settings)
    log.info("abuse.train.split", rows=len(rows.texts), dropped_near_duplicates=rows.dropped)
    train.fit(rows, settings, iterations).save(out)


@app.command("export")
def export_command(
    weights: Annotated[Path, typer.Argument(help="Weights from train.")],
    out: Annotated[Path, typer.Option(help="Folder for model.onnx and its configuration.")] = SHIPPED,
    data: Data = DATA,
    seed: Seed = 7,
) -> None:
    """Quantize, choose the thresholds on held-out ordinary requests, measure, write. Needs the extra `abuse`."""
    from penstock_tuning.abuse import export as exporting  # noqa: PLC0415  # the other commands work without the extra
    from penstock_tuning.abuse import train  # noqa: PLC0415  # as above

    trained = train.Weights.load(weights)
    rows = split.build(data, seed, trained.features)
    table, scale = exporting.quantize(trained.table)
    scorer = _table_scorer(table.astype(np.float64) * scale, trained.bias, trained.features)
    scores = [measure.text_scores(texts, scorer, trained.features) for texts in rows.valid_benign.values()]
    thresholds = {name: measure.threshold_at(scores, rate) for name, rate in RATES.items()}
    thresholds["block"] = max(thresholds["block"], thresholds["flag"])
    report = {name: measure.report(rows, scorer, trained.features, value) for name, value in thresholds.items()}
    exporting.write(trained, thresholds, {"rates": RATES, **report}, out)
    typer.echo(json.dumps(report["flag"]))


@app.command("evaluate")
def evaluate_command(
    model: Annotated[Path, typer.Option(help="Folder written by export.")] = SHIPPED,
    data: Data = DATA,
    seed: Seed = 7,
) -> None:
    """Measure the exported file with the service's own code. The last line is JSON."""
    classifier = AbuseClassifier(model)
    rows = split.build(data, seed, classifier.features)

    def scorer(texts: list[str]) -> NDArray[np.float64]:
        return np.concatenate(
            [classifier.probabilities(texts[at : at + 512]) for at in range(0, len(texts), 512)]
        ).astype(np.float64)

    report = measure.report(rows, scorer, classifier.features, classifier.flag_threshold)
    typer.echo(json.dumps(report))


@app.command("evaluate-rules")
def evaluate_rules_command(
    data: Data = DATA,
    per_source: Annotated[int, typer.Option(help="At most this many benign texts of each source.")] = 600,
    seed: Seed = 7,
) -> None:
    """Recall of the rule detectors on known attacks and their false positives. The last line is JSON."""
    typer.echo(json.dumps(rules_report.report(data, per_source, seed)))


def _table_scorer(table: NDArray[np.float64], bias: float, settings: FeatureSettings) -> Scorer:
    def score(texts: list[str]) -> NDArray[np.float64]:
        rows = [ngram_ids(text, settings) for text in texts]
        logits = np.array([table[ids].sum() / np.sqrt(max(len(ids), 1)) for ids in rows]) + bias
        probabilities: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
        return probabilities

    return score
