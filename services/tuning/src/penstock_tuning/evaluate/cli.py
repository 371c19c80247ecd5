"""`penstock tune evaluate`: every figure of the shipped models and their baselines by one command."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock_tuning.data.build import CACHE
from penstock_tuning.data.cli import DATA
from penstock_tuning.errors import TuningError
from penstock_tuning.evaluate import page, tables
from penstock_tuning.evaluate.errors import EvaluationError, ToolMissingError
from penstock_tuning.evaluate.results import LINEAR, SCRATCH, SHIPPED, Results, Splits, measure, there
from penstock_tuning.evaluate.systems import HeadsFolder, System, megabytes
from penstock_tuning.training.hardware import hardware

MODEL = Path("build/models/penstock-heads")
LANGUAGE_MODEL = Path("deploy/models/penstock-lm")
WORK = Path("build/penstock-eval")


def evaluate(
    *,
    model: Annotated[
        Path | None, typer.Option(help=f"The finished heads; {MODEL} where it is there, else none.")
    ] = None,
    scratch: Annotated[Path | None, typer.Option(help="The same trained without pretraining.")] = None,
    ablation: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: heads that were trained without that ingredient.")
    ] = None,
    lm: Annotated[Path, typer.Option(help="The language model.")] = LANGUAGE_MODEL,
    report: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    data: Annotated[Path, typer.Option(envvar="PENSTOCK_DATA", help="The data folder.")] = DATA,
    cache: Annotated[Path, typer.Option(help="Where built data is kept.")] = CACHE,
    work: Annotated[Path, typer.Option(help="Where trained baselines are kept.")] = WORK,
    seed: Annotated[int, typer.Option(help="Of the data, as in training, and of the resamples.")] = 7,
    resamples: Annotated[int, typer.Option(min=20, help="Of the bootstrap.")] = 1000,
) -> None:
    """Measure the shipped heads and language model on held-out sources, beside baselines. The last line is JSON."""
    try:
        found = _run(
            _folders(model, scratch, ablation or []), lm, data, cache=cache, work=work, seed=seed, resamples=resamples
        )
    except TuningError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    tables.show(found, Console(width=180))
    if report is not None:
        page.write(found, report, hardware())
        typer.echo(f"wrote {report}")
    typer.echo(found.line())


def _run(
    folders: dict[str, Path],
    lm: Path,
    data: Path,
    *,
    cache: Path,
    work: Path,
    seed: int,
    resamples: int,
) -> Results:
    there(data)
    if missing := [name for name in ("onnx", "scipy", "sklearn") if find_spec(name) is None]:
        raise ToolMissingError(f"{', '.join(missing)} not installed: install penstock-tuning[abuse]")
    from penstock_tuning.evaluate.language import perplexity
    from penstock_tuning.evaluate.linear.system import trained
    from penstock_tuning.evaluate.speed import measure as measure_speed

    systems: dict[str, System] = {name: HeadsFolder(folder) for name, folder in folders.items()}
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def tell(sentence: str) -> None:
        typer.echo(sentence, err=True)

    def done(what: str) -> None:
        seconds[what] = time.monotonic() - began - sum(seconds.values())

    splits = Splits.of(data, cache, seed, None, tell)
    rows = splits.rows()
    done("data")
    systems[LINEAR] = trained(splits.train, splits.validation, seed, work, tell)
    done("linear baselines")
    figures = measure(systems, rows, resamples, seed, tell)
    done("figures")
    speed = measure_speed(folders[SHIPPED], work) if SHIPPED in folders else None
    done("throughput")
    language = perplexity(lm, data, work / "lm")
    done("language model")
    return Results(
        figures=figures,
        systems=list(systems),
        rows={task: len(built) for task, built in splits.test.items()},
        seconds=seconds,
        megabytes={name: megabytes(folder) for name, folder in folders.items()},
        speed=speed,
        language=language,
    )


def _folders(model: Path | None, scratch: Path | None, ablation: list[str]) -> dict[str, Path]:
    """By system; a default folder that does not exist is left out, one that was named is not."""
    folders: dict[str, Path] = {}
    if model is not None or MODEL.exists():
        folders[SHIPPED] = model or MODEL
    if scratch is not None:
        folders[SCRATCH] = scratch
    for given in ablation:
        name, equals, folder = given.partition("=")
        if not (name and equals and folder) or name in (SHIPPED, SCRATCH, LINEAR, *folders):
            raise EvaluationError(f"{given!r} is not NAME=FOLDER with a name of its own")
        folders[name] = Path(folder)
    return folders
