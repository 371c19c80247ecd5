"""What the commands that train have in common: their options, and the way from a recipe to a finished folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.models.errors import ModelError
from penstock_tuning.errors import TuningError
from penstock_tuning.training.registering import register_folder

if TYPE_CHECKING:
    from penstock_tuning.training.pieces import Pieces

Preset = Annotated[str, typer.Option(help="cpu: two cores. gpu: an H200-class GPU.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A configuration file instead of a preset.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE in place of the file's, such as machine.threads=1.")
]
Data = Annotated[Path, typer.Option(envvar="PENSTOCK_DATA", help="The data folder.")]
Cache = Annotated[Path, typer.Option(help="Where built data is kept.")]
Work = Annotated[Path, typer.Option(help="Folder of the run: prepared data and checkpoints.")]
Model = Annotated[Path, typer.Option(help="Folder of the finished model.")]
Minutes = Annotated[float | None, typer.Option(min=0, help="Stop cleanly after this long; the same command goes on.")]
Register = Annotated[
    bool, typer.Option("--register", help="Add the finished model to the registry (PENSTOCK_MODELS_DIR).")
]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A run whose data is prepared."""

    name: str
    """Of the model."""
    training: Pieces
    export: Callable[[], dict[str, Any]]
    """Puts the finished folder in place and returns its record."""


def train_to_folder(
    begin: Callable[[Progress], Run], model: Path, *, needs: Sequence[str], minutes: float | None, register: bool
) -> None:
    """Prepare, train for so many minutes or to the end, export, register; the last line printed is JSON.

    Args:
        begin: reads the recipe and prepares; it is told whom to report progress to, and imports what it needs itself.
        model: where the finished folder is.
        needs: modules that must be installed.
        minutes: None trains to the end.
        register: add the finished folder to the registry.

    Raises:
        typer.Exit: with 1, after one line that says what is wrong.
    """
    began = time.monotonic()
    if missing := [name for name in needs if find_spec(name) is None]:
        typer.echo(f"error: {', '.join(missing)} not installed: install penstock-tuning[train]", err=True)
        raise typer.Exit(1)
    try:
        run = begin(lambda sentence: typer.echo(sentence, err=True))
        training = run.training
        if not training.run(None if minutes is None else began + 60 * minutes):
            typer.echo(json.dumps({"finished": False, "step": training.step, "steps": training.steps}))
            return
        record = run.export()
        if register:
            typer.echo(f"added {register_folder(model, run.name)}", err=True)
    except (TuningError, ModelError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps({"finished": True, "model": str(model), "seconds": record["seconds"], **record["metrics"]}))
