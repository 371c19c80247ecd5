"""`penstock tune heads`: from a finished encoder to a model folder by one command, in as many pieces as are wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock_tuning.data.build import CACHE
from penstock_tuning.data.cli import DATA
from penstock_tuning.heads.config import load_config
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


def heads(
    *,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    change: Changes = None,
    encoder: Annotated[Path, typer.Option(help="Folder of the finished encoder.")] = Path(
        "build/models/penstock-encoder"
    ),
    encoder_work: Annotated[Path, typer.Option(help="Folder of the encoder's run: its weights.")] = Path(
        "build/penstock-encoder"
    ),
    data: Data = DATA,
    cache: Cache = CACHE,
    work: Work = Path("build/penstock-heads"),
    model: Model = Path("build/models/penstock-heads"),
    minutes: Minutes = None,
    register: Register = False,
) -> None:
    """Train the heads on an encoder, calibrate, export as int8 ONNX and check it. The last line is JSON."""

    def begin(progress: Progress) -> Run:
        from penstock_tuning.encoder.model import initial_weights
        from penstock_tuning.heads.export import export
        from penstock_tuning.heads.prepare import prepare
        from penstock_tuning.heads.record import find_encoder
        from penstock_tuning.heads.train import HeadsTraining
        from penstock_tuning.training.checkpoints import load_checkpoint

        recipe = load_config(preset, config, change or ())
        base = find_encoder(encoder, encoder_work, pretrained=recipe.pretrained)
        prepared = prepare(recipe, base.tokenizer, base.digest, work, root=data, cache=cache, progress=progress)
        shape = base.config.shape
        weights = load_checkpoint(encoder_work)["weights"] if recipe.pretrained else initial_weights(shape, recipe.seed)
        training = HeadsTraining(recipe, shape, weights, prepared, work)
        return Run(recipe.name, training, lambda: export(recipe, base, prepared, work, model))

    train_to_folder(begin, model, needs=("torch", "onnx"), minutes=minutes, register=register)
