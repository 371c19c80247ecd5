"""`penstock tune lm`: from the public sets to a model folder by one command. Also `lm-evaluate` and `lm-fixture`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from penstock_tuning.data.build import CACHE
from penstock_tuning.data.cli import DATA
from penstock_tuning.errors import TuningError
from penstock_tuning.lm.config import load_config
from penstock_tuning.training.command import (
    Cache,
    Changes,
    ConfigFile,
    Data,
    Minutes,
    Model,
    Preset,
    Progress,
    Register,
    Run,
    Work,
    train_to_folder,
)

SHIPPED = Path("deploy/models/penstock-lm")
FIXTURE = Path("tests/fixtures/lm_greedy.json")
_NEEDS = ("torch", "transformers", "onnx", "onnx_ir", "onnxruntime_genai")


def lm(
    *,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    change: Changes = None,
    data: Data = DATA,
    cache: Cache = CACHE,
    work: Work = Path("build/penstock-lm"),
    model: Model = Path("build/models/penstock-lm"),
    minutes: Minutes = None,
    register: Register = False,
) -> None:
    """Train the language model, export it quantized, check and measure it. The last line is JSON."""

    def begin(progress: Progress) -> Run:
        from penstock_tuning.lm.export import export
        from penstock_tuning.lm.held_out import held_out_texts
        from penstock_tuning.lm.prepare import prepare
        from penstock_tuning.lm.train import Training

        recipe = load_config(preset, config, change or ())
        prepared = prepare(recipe, work, data, cache, progress)
        training = Training(recipe, prepared, work)
        measured = held_out_texts(data, work)
        return Run(recipe.name, training, lambda: export(recipe, prepared, measured, work, model))

    train_to_folder(begin, model, needs=_NEEDS, minutes=minutes, register=register)


def lm_evaluate(
    *,
    model: Annotated[Path, typer.Option(help="Folder of the language model.")] = SHIPPED,
    data: Data = DATA,
    work: Annotated[Path, typer.Option(help="Where the held-out texts are kept.")] = Path("build/penstock-eval/lm"),
    reference: Annotated[
        Path | None, typer.Option(help="The fp32 export of the same weights: folder fp32 of the run.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Generated prompts for each side of the split.")] = 400,
    seed: Annotated[int, typer.Option(help="Of the generated prompts.")] = 7,
) -> None:
    """Measure a language model: bits per byte of held-out text, and its few tasks. The last line is JSON."""
    from penstock_tuning.lm.evaluate import evaluate, table
    from penstock_tuning.lm.held_out import held_out_texts

    try:
        kept = held_out_texts(data, work)
    except TuningError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    result = evaluate(model, kept, prompts=prompts, seed=seed, reference=reference)
    typer.echo(table(result))
    typer.echo(json.dumps(result))


def lm_fixture(
    *,
    model: Annotated[Path, typer.Option(help="Folder of the language model.")] = SHIPPED,
    target: Annotated[Path, typer.Option(help="File to write.")] = FIXTURE,
) -> None:
    """Write the greedy reference answers of the shipped model, which tests compare with."""
    from penstock_tuning.lm.fixture import write_fixture

    write_fixture(model, target)
    typer.echo(f"wrote {target}")
