"""`models list|show|verify`: what the registry holds. What changes it is in `models_changes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from penstock.cli.models_changes import models_add, models_promote, models_remove, models_rollback
from penstock.cli.models_registry import (
    ModelsDir,
    Reference,
    aliases_of,
    as_dict,
    byte_bar,
    licence_line,
    moment,
    open_registry,
    size,
)
from penstock.cli.options import Json, print_json
from penstock.cli.render import err, out, printable
from penstock.models.aliases import Aliases
from penstock.models.entries import Entry, problems

models_app = typer.Typer(
    no_args_is_help=True,
    help="The models that inference may serve: adding revisions, looking at them, and promoting one without a restart.",
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(models_app, name="models")
    models_app.command("add")(models_add)
    models_app.command("promote")(models_promote)
    models_app.command("rollback")(models_rollback)
    models_app.command("remove")(models_remove)


@models_app.command("list")
def models_list(models_dir: ModelsDir = None, as_json: Json = False) -> None:
    """List all revisions: the built-in one, then each model's, the newest first, and the aliases that point at them.

    Examples: `penstock models list`, `penstock models list --json`
    """
    registry = open_registry(models_dir)
    entries, aliases = registry.entries(), registry.aliases()
    if as_json:
        print_json([as_dict(entry, aliases) for entry in entries])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "alias", "format", "weights", "context", "licence", "size", "added"):
        table.add_column(heading)
    for entry in entries:
        manifest = entry.manifest
        table.add_row(
            printable(manifest.reference),
            Text(", ".join(aliases_of(entry, aliases)), style="green"),
            manifest.format if manifest.adapter is None else f"lora of {printable(manifest.adapter.base)}",
            printable(manifest.quantization),
            str(manifest.context_length),
            Text(printable(licence_line(manifest.licence)), style="yellow" if manifest.licence.restrictions else ""),
            size(manifest.bytes),
            "built in" if entry.builtin else moment(manifest.added_ms),
        )
    out.print(table)


@models_app.command("show")
def models_show(model: Reference, models_dir: ModelsDir = None, as_json: Json = False) -> None:
    """Show all that is known of one revision: licence and restrictions, evaluations, prompts, data, files, changes.

    Examples: `penstock models show champion`, `penstock models show my-model@3f2a --json`
    """
    registry = open_registry(models_dir)
    entry, aliases = registry.find(model), registry.aliases()
    changes = [change for change in aliases.changes if entry.reference in (change.was, change.now)]
    if as_json:
        print_json({**as_dict(entry, aliases), "changes": [change.model_dump(mode="json") for change in changes]})
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(entry, aliases):
        table.add_row(Text(name, style="bold"), printable(value))
    out.print(table)
    files = Table(box=None, pad_edge=False)
    for heading in ("file", "bytes", "sha256"):
        files.add_column(heading)
    for file in entry.manifest.files:
        files.add_row(printable(file.path), str(file.bytes), file.sha256)
    out.print()
    out.print(files)
    if changes:
        out.print()
    for change in changes:
        was = f"from {change.was} " if change.was else ""
        out.print(f"{moment(change.at_ms)}  {change.action} {change.alias}: {was}to {change.now}", markup=False)


@models_app.command("verify")
def models_verify(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="NAME, NAME@REVISION, an alias; without one, all.")
    ] = None,
    models_dir: ModelsDir = None,
    as_json: Json = False,
) -> None:
    """Compare every file with the SHA-256 it was added with. Exit status 0 where all are the same, else 1.

    Examples: `penstock models verify`, `penstock models verify champion --json`
    """
    registry = open_registry(models_dir)
    entries = registry.entries() if model is None else [registry.find(model)]
    found: dict[str, list[str]] = {}
    with byte_bar("verifying", sum(entry.manifest.bytes for entry in entries)) as progress:
        for entry in entries:
            found[entry.manifest.reference] = problems(entry, progress)
    wrong = any(found.values())
    if as_json:
        print_json({"ok": not wrong, "models": found})
    else:
        for reference, sentences in found.items():
            out.print(f"{reference}: {'damaged' if sentences else 'as it was added'}", markup=False)
            for sentence in sentences:
                err.print(f"  {printable(sentence)}", markup=False)
    if wrong:
        raise typer.Exit(1)


def _facts(entry: Entry, aliases: Aliases) -> Iterator[tuple[str, str]]:
    manifest = entry.manifest
    yield "model", manifest.reference
    yield "aliases", ", ".join(aliases_of(entry, aliases)) or "none"
    yield "format", manifest.format
    yield "architecture", manifest.architecture
    if manifest.adapter is not None:
        yield "adapter of", f"{manifest.adapter.base}, whose digest in results is {manifest.adapter.base_answers}"
        yield "rank", f"{manifest.adapter.rank}, scaled by {manifest.adapter.scale:g}"
        yield "changes", ", ".join(manifest.adapter.targets)
    yield "context", f"{manifest.context_length} tokens"
    yield "weights", f"{manifest.quantization}, {size(manifest.bytes)} in all"
    yield "licence", " ".join(filter(None, (manifest.licence.id, manifest.licence.name, manifest.licence.link)))
    for restriction in manifest.licence.restrictions:
        yield "", f"restricts use: {restriction}"
    yield "tokenizer", manifest.tokenizer or "none"
    yield "chat template", manifest.chat_template or "none"
    yield "digest in results", manifest.answers or "none: not served"
    for title, values in (
        ("trained from", manifest.base_models),
        ("made for prompts", manifest.prompts),
        ("data", manifest.data),
    ):
        if values:
            yield title, ", ".join(values)
    for evaluation in manifest.evaluations:
        yield "evaluation", f"{evaluation.dataset}: {evaluation.metric} {evaluation.value:g}"
    source = manifest.source
    yield "from", f"{source.kind} {source.location}" + (f" at {source.revision}" if source.revision else "")
    if source.converted_by:
        yield "converted by", source.converted_by
    if manifest.added_ms:
        yield "added", moment(manifest.added_ms)
    yield "folder", str(entry.folder)
