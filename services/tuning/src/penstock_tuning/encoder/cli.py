"""`penstock tune encoder`: from the public sets to a model folder by one command, in as many pieces as are wanted."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from penstock.models.errors import ModelError
from penstock_tuning.data.build import CACHE
from penstock_tuning.data.cli import DATA
from penstock_tuning.encoder.config import load_config
from penstock_tuning.lm.errors import TuningError
from penstock_tuning.training.registering import register_folder


def encoder(
    *,
    preset: Annotated[
        str, typer.Option(help="cpu: two hours on two cores with the heads. gpu: an H200-class GPU.")
    ] = "cpu",
    config: Annotated[Path | None, typer.Option(help="A configuration file instead of a preset.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE in place of the file's, such as machine.threads=1.")
    ] = None,
    data: Annotated[Path, typer.Option(envvar="PENSTOCK_DATA", help="The data folder.")] = DATA,
    cache: Annotated[Path, typer.Option(help="Where built data is kept.")] = CACHE,
    work: Annotated[Path, typer.Option(help="Folder of the run: token streams and checkpoints.")] = Path(
        "build/penstock-encoder"
    ),
    model: Annotated[Path, typer.Option(help="Folder of the finished model.")] = Path("build/models/penstock-encoder"),
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop cleanly after this long; the same command goes on.")
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Add the finished model to the registry (PENSTOCK_MODELS_DIR).")
    ] = False,
) -> None:
    """Pretrain the encoder, export it as int8 ONNX and check it. The last line is JSON."""
    began = time.monotonic()
    if missing := [name for name in ("torch", "onnx") if find_spec(name) is None]:
        typer.echo(f"error: {', '.join(missing)} not installed: install penstock-tuning[train]", err=True)
        raise typer.Exit(1)
    from penstock_tuning.encoder.export import export
    from penstock_tuning.encoder.prepare import prepare
    from penstock_tuning.encoder.train import Pretraining

    try:
        recipe = load_config(preset, config, change or ())
        prepared = prepare(recipe, work, data, cache, lambda sentence: typer.echo(sentence, err=True))
        training = Pretraining(recipe, prepared, work)
        finished = training.run(None if minutes is None else began + 60 * minutes)
        if not finished:
            typer.echo(json.dumps({"finished": False, "step": training.step, "steps": recipe.steps}))
            return
        record = export(recipe, prepared, work, model)
        if register:
            typer.echo(f"added {register_folder(model, recipe.name)}", err=True)
    except (TuningError, ModelError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps({"finished": True, "model": str(model), "seconds": record["seconds"], **record["metrics"]}))
