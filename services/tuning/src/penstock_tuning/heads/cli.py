"""`penstock tune heads`: from a finished encoder to a model folder by one command, in as many pieces as are wanted."""

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
from penstock_tuning.heads.config import load_config
from penstock_tuning.lm.errors import TuningError
from penstock_tuning.training.registering import register_folder


def heads(
    *,
    preset: Annotated[str, typer.Option(help="cpu: an hour on two cores. gpu: an H200-class GPU.")] = "cpu",
    config: Annotated[Path | None, typer.Option(help="A configuration file instead of a preset.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE in place of the file's, such as pretrained=false.")
    ] = None,
    encoder: Annotated[Path, typer.Option(help="Folder of the finished encoder.")] = Path(
        "build/models/penstock-encoder"
    ),
    encoder_work: Annotated[Path, typer.Option(help="Folder of the encoder's run: its weights.")] = Path(
        "build/penstock-encoder"
    ),
    data: Annotated[Path, typer.Option(envvar="PENSTOCK_DATA", help="The data folder.")] = DATA,
    cache: Annotated[Path, typer.Option(help="Where built data is kept.")] = CACHE,
    work: Annotated[Path, typer.Option(help="Folder of the run: arrays and checkpoints.")] = Path(
        "build/penstock-heads"
    ),
    model: Annotated[Path, typer.Option(help="Folder of the finished model.")] = Path("build/models/penstock-heads"),
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop cleanly after this long; the same command goes on.")
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Add the finished model to the registry (PENSTOCK_MODELS_DIR).")
    ] = False,
) -> None:
    """Train the heads on an encoder, calibrate, export as int8 ONNX and check it. The last line is JSON."""
    began = time.monotonic()
    if missing := [name for name in ("torch", "onnx") if find_spec(name) is None]:
        typer.echo(f"error: {', '.join(missing)} not installed: install penstock-tuning[train]", err=True)
        raise typer.Exit(1)
    from penstock_tuning.encoder.model import initial_weights
    from penstock_tuning.heads.export import export
    from penstock_tuning.heads.prepare import prepare
    from penstock_tuning.heads.record import find_encoder
    from penstock_tuning.heads.train import HeadsTraining
    from penstock_tuning.training.checkpoints import load_checkpoint

    try:
        recipe = load_config(preset, config, change or ())
        base = find_encoder(encoder, encoder_work, pretrained=recipe.pretrained)
        prepared = prepare(
            recipe,
            base.tokenizer,
            base.digest,
            work,
            root=data,
            cache=cache,
            progress=lambda sentence: typer.echo(sentence, err=True),
        )
        shape = base.config.shape
        begin = load_checkpoint(encoder_work)["weights"] if recipe.pretrained else initial_weights(shape, recipe.seed)
        training = HeadsTraining(recipe, shape, begin, prepared, work)
        finished = training.run(None if minutes is None else began + 60 * minutes)
        if not finished:
            typer.echo(json.dumps({"finished": False, "step": training.step, "steps": recipe.steps}))
            return
        record = export(recipe, base, prepared, work, model)
        if register:
            typer.echo(f"added {register_folder(model, recipe.name)}", err=True)
    except (TuningError, ModelError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps({"finished": True, "model": str(model), "seconds": record["seconds"], **record["metrics"]}))
