"""The `lm` commands: prepare, train, export, evaluate and fixture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from penstock_tuning.lm.config import LmConfig, data_root
from penstock_tuning.lm.errors import TuningError

app = typer.Typer(no_args_is_help=True, help="Train and export the embedded language model.")

Work = Annotated[Path, typer.Option(help="Folder for prepared data, checkpoints and exports.")]
Model = Annotated[Path, typer.Option(help="Folder of the shipped model.")]
DEFAULT_WORK = Path("build/penstock-lm")
DEFAULT_MODEL = Path("deploy/models/penstock-lm")
DEFAULT_FIXTURE = Path("tests/fixtures/lm_greedy.json")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say what is wrong in one line instead of a traceback, with exit code 1."""
    try:
        yield
    except TuningError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def prepare(work: Work = DEFAULT_WORK) -> None:
    """Read the public sets (PENSTOCK_DATA), train the tokenizer and write token arrays."""
    from penstock_tuning.lm.prepare import prepare as run

    with _plain_errors():
        run(data_root(), work, LmConfig())


@app.command()
def train(
    work: Work = DEFAULT_WORK,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    compiled: Annotated[bool, typer.Option(help="Compile the training step (needs a C++ compiler).")] = True,
) -> None:
    """Train through both phases on the CPU."""
    from penstock_tuning.lm.train import train as run

    with _plain_errors():
        run(work, LmConfig(), resume=resume, compiled=compiled)


@app.command()
def export(work: Work = DEFAULT_WORK, model: Model = DEFAULT_MODEL) -> None:
    """Export the newest checkpoint, check it and put it in place."""
    from penstock_tuning.lm.export import export as run

    with _plain_errors():
        run(work, model, LmConfig())


@app.command()
def evaluate(
    work: Work = DEFAULT_WORK,
    model: Model = DEFAULT_MODEL,
    prompts: Annotated[int, typer.Option(help="Generated prompts for each side of the split.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the generated prompts.")] = LmConfig.seed,
) -> None:
    """Measure the exported model; the last line is one JSON object."""
    from penstock_tuning.lm.evaluate import evaluate as run
    from penstock_tuning.lm.evaluate import table

    with _plain_errors():
        result = run(work, model, replace(LmConfig(), seed=seed), prompts)
    typer.echo(table(result))
    typer.echo(json.dumps(result))


@app.command()
def fixture(
    model: Model = DEFAULT_MODEL,
    target: Annotated[Path, typer.Option(help="File to write.")] = DEFAULT_FIXTURE,
) -> None:
    """Write the greedy reference answers of the shipped model."""
    from penstock_tuning.lm.fixture import write_fixture

    write_fixture(model, target)
    typer.echo(f"wrote {target}")
