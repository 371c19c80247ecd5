"""Commands of the training data: verify, build, report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from penstock_tuning.data import manifest as manifests
from penstock_tuning.data.augment.plan import TASKS as AUGMENTED_TASKS
from penstock_tuning.data.build import CACHE
from penstock_tuning.data.build import build as run_build
from penstock_tuning.data.example import SPLITS, TASKS
from penstock_tuning.data.report import figures, page
from penstock_tuning.errors import TuningError

app = typer.Typer(no_args_is_help=True, help="The public sets that models are trained on: check, build, report.")

DATA = Path("../shared/data")
Data = Annotated[Path, typer.Option(envvar="PENSTOCK_DATA", help="The data folder.")]
Cache = Annotated[Path, typer.Option(help="Where built files are kept.")]
Seed = Annotated[int, typer.Option(help="Of caps, generated text, augmentation and order.")]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say what is wrong in one line instead of a traceback, with exit code 1."""
    try:
        yield
    except TuningError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _tell(sentence: str) -> None:
    typer.echo(sentence, err=True)


@app.command()
def verify(
    data: Data = DATA,
    write: Annotated[
        bool, typer.Option("--write", help="Put the digests of the files as they are into the manifest.")
    ] = False,
) -> None:
    """Compare the files with the manifest: what is missing, what has changed. The last line is JSON."""
    with _plain_errors():
        manifest = manifests.load()
        if write:
            digests = {name: source.measure(data) for name, source in manifest.sources.items()}
            path = manifests.shipped_path()
            path.write_text(manifests.with_digests(path.read_text("utf-8"), digests), "utf-8")
            manifest = manifests.load()
        wrong = manifests.verify(manifest, data)
    for name, what in wrong.items():
        typer.echo(f"{name}: {what}")
    counts = {split: len(names) for split, names in manifest.splits.items()}
    typer.echo(json.dumps({"sources": len(manifest.sources), **counts, "wrong": len(wrong)}))
    if wrong:
        raise typer.Exit(1)


@app.command()
def notice(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="What a model was trained for; all where none is named.")
    ] = None,
) -> None:
    """Print the attribution lines that a model trained on these tasks owes."""
    with _plain_errors():
        for line in manifests.load().attributions(tasks or TASKS):
            typer.echo(line)


@app.command()
def build(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(TASKS)}, or `all`.")] = "all",
    data: Data = DATA,
    cache: Cache = CACHE,
    seed: Seed = 7,
    augment: Annotated[bool, typer.Option("--augment", help="Augment train, where a task has it.")] = False,
) -> None:
    """Write the examples of a task as JSON lines and print their paths. The last line is JSON."""
    result = {}
    with _plain_errors():
        for name in TASKS if task == "all" else (task,):
            for split in SPLITS:
                wanted = augment and split == "train" and name in AUGMENTED_TASKS
                built = run_build(name, split, seed, wanted, root=data, cache=cache, progress=_tell)
                typer.echo(f"{name} {split}: {len(built)} examples in {built.path}")
                result[f"{name}_{split}"] = len(built)
    typer.echo(json.dumps(result))


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The page to write; its plots go beside it.")] = Path("data.md"),
    data: Data = DATA,
    seed: Seed = 7,
) -> None:
    """Read and clean everything and write what there is as a page with plots: some minutes. The last line is JSON."""
    with _plain_errors():
        manifest = manifests.load()
        found = figures.collect(manifest, data, seed, _tell)
    for path in page.write(found, manifest, seed, out):
        typer.echo(f"wrote {path}")
    rows = {f"{task}_{split}": own.examples for task, sides in found.splits.items() for split, own in sides.items()}
    typer.echo(json.dumps({**rows, **{f"auc_{judged.label}": round(judged.auc, 3) for judged in found.noise}}))
