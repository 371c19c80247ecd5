"""`penstock tune encoder`: from the public sets to a model folder by one command, in as many pieces as are wanted."""

from __future__ import annotations

from pathlib import Path

from penstock_tuning.data.build import CACHE
from penstock_tuning.data.cli import DATA
from penstock_tuning.encoder.config import load_config
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


def encoder(
    *,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    change: Changes = None,
    data: Data = DATA,
    cache: Cache = CACHE,
    work: Work = Path("build/penstock-encoder"),
    model: Model = Path("build/models/penstock-encoder"),
    minutes: Minutes = None,
    register: Register = False,
) -> None:
    """Pretrain the encoder, export it as int8 ONNX and check it. The last line is JSON."""

    def begin(progress: Progress) -> Run:
        from penstock_tuning.encoder.export import export
        from penstock_tuning.encoder.prepare import prepare
        from penstock_tuning.encoder.train import Pretraining

        recipe = load_config(preset, config, change or ())
        prepared = prepare(recipe, work, data, cache, progress)
        training = Pretraining(recipe, prepared, work)
        return Run(recipe.name, training, lambda: export(recipe, prepared, work, model))

    train_to_folder(begin, model, needs=("torch", "onnx"), minutes=minutes, register=register)
