"""`models add|promote|rollback|remove`: what changes the registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from penstock.cli.models_registry import ModelsDir, Reference, as_dict, byte_bar, open_registry, size
from penstock.cli.options import Json, print_json
from penstock.cli.render import err, out, printable
from penstock.models import convert
from penstock.models.adding import ENDPOINT, SCHEME, TOKEN_VARIABLE, How, add_folder, add_from_hub
from penstock.models.aliases import CHAMPION
from penstock.models.facts import Given
from penstock.models.manifest import UNKNOWN, Evaluation, Manifest

Alias = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="ALIAS", help="Such as `canary`; else the one that serves all, an adapter's its name."
    ),
]
AliasArgument = Annotated[str, typer.Argument(metavar="[ALIAS]", help="Such as `canary`.")]


def models_add(  # noqa: PLR0917  # a command: its parameters are options
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|hub:ORG/NAME[@REV]",
            help="A folder of the onnxruntime-genai builder, of Hugging Face or of a PEFT adapter, or one on the hub.",
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="The model's name; else the folder's.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="ID", help="SPDX identifier; else what the model card says.")
    ] = None,
    restriction: Annotated[
        list[str] | None,
        typer.Option("--restriction", metavar="TEXT", help="A use restriction of the licence; repeatable."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", metavar="FILE", help="JSON list of objects with dataset, metric and value."),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="NAME@VERSION", help="A prompt template made for it; repeatable."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="NAME", help="A data set it was tuned on; repeatable.")
    ] = None,
    precision: Annotated[
        convert.Precision, typer.Option("--precision", help="Of the weights, where they are converted.")
    ] = "int4",
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Keep a Hugging Face folder as it is; it cannot serve.")
    ] = False,
    adapter_of: Annotated[
        str | None, typer.Option("--adapter-of", metavar="MODEL", help="It is a LoRA adapter of this model.")
    ] = None,
    hub_endpoint: Annotated[
        str, typer.Option("--hub-endpoint", envvar="PENSTOCK_HUB_ENDPOINT", metavar="URL", help="The hub's address.")
    ] = ENDPOINT,
    models_dir: ModelsDir = None,
    as_json: Json = False,
) -> None:
    """Copy a model into the registry as a new revision, which nothing changes any more. The same twice is one revision.

    Taken are safetensors and ONNX files with what a loader needs beside them; pickles are refused. Licence, data sets
    and evaluations are read from the front matter of its README.md. A Hugging Face folder is converted where
    penstock[convert] is installed. Nothing serves it before it is promoted.

    From the hub only what is named is fetched, of one commit, each file checked by its digest; a cut download goes on
    where it ended. A token is read from HF_TOKEN.

    A LoRA adapter in a folder of PEFT's is added with the model it belongs to, which it is checked against.

    Examples: `penstock models add ./my-model`, `penstock models add hub:ORG/NAME@v1.0 --name support --precision int8`,
    `penstock models add ./tone --adapter-of support`
    """
    given = Given(
        licence=licence,
        restrictions=tuple(restriction or ()),
        evaluations=_evaluations(evaluation),
        prompts=tuple(prompt or ()),
        data=tuple(data or ()),
    )
    registry = open_registry(models_dir)
    how = How(given, name, precision, as_is, adapter_of)
    if source.startswith(SCHEME):
        from penstock.models.hub import Hub  # noqa: PLC0415  # its client takes 0.1 s to import

        with Hub(hub_endpoint, os.environ.get(TOKEN_VARIABLE)) as hub:
            result = add_from_hub(registry, source, how, byte_bar, hub)
    else:
        result = add_folder(registry, Path(source).expanduser(), how, byte_bar)
    if result.left_out:
        err.print(f"left out: {printable(', '.join(result.left_out))}", markup=False)
    added = result.added
    manifest = added.entry.manifest
    _warn(manifest)
    if as_json:
        print_json({"new": added.new, **as_dict(added.entry, registry.aliases())})
        return
    said = "added" if added.new else "was there already:"
    out.print(f"{said} {manifest.reference} ({size(manifest.bytes)})", markup=False)
    if manifest.answers is not None:
        out.print(f"let it serve with `penstock models promote {manifest.reference}`", markup=False)
    elif result.unconverted:
        out.print(
            f"not converted, so it cannot serve: {', '.join(result.unconverted)} not installed; install "
            "penstock[convert] and add it again",
            markup=False,
        )
    else:
        out.print("kept as it is: add it again without --as-is before it can serve", markup=False)


def models_promote(model: Reference, alias: Alias = None, models_dir: ModelsDir = None, as_json: Json = False) -> None:
    """Point an alias at a revision. Services that serve the alias take it for new requests, without a restart.

    Requests under way end on the revision they began with. Its files are verified first. An adapter is promoted under
    its own name, by which requests ask for it as `model`, or under another.

    Examples: `penstock models promote support`, `penstock models promote support@3f2a --as canary`
    """
    registry = open_registry(models_dir)
    before = registry.aliases()
    entry = registry.promote(model, alias)
    alias = registry.alias_of(entry) if alias is None else alias
    was = before.current(alias)
    _warn(entry.manifest)
    _say_moved(alias, was, entry.reference, as_json=as_json)


def models_rollback(alias: AliasArgument = CHAMPION, models_dir: ModelsDir = None, as_json: Json = False) -> None:
    """Point an alias at what it pointed at before its last promotion; again, at what was before that.

    Examples: `penstock models rollback`, `penstock models rollback canary`
    """
    registry = open_registry(models_dir)
    was = registry.aliases().current(alias)
    entry = registry.rollback(alias)
    _say_moved(alias, was, entry.reference, as_json=as_json)


def models_remove(
    model: Annotated[str, typer.Argument(metavar="NAME@REVISION", help="One revision; a name alone is not enough.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    models_dir: ModelsDir = None,
    as_json: Json = False,
) -> None:
    """Delete a revision that no alias points at.

    Examples: `penstock models remove support@3f2a91c07d15`
    """
    registry = open_registry(models_dir)
    if "@" not in model:
        raise typer.BadParameter(f"give the revision too, as `penstock models list` shows it: {model}@...")
    manifest = registry.find(model).manifest
    if not yes:
        typer.confirm(f"delete {manifest.reference}, {size(manifest.bytes)}?", abort=True, err=True)
    registry.remove(manifest.reference)
    if as_json:
        print_json({"removed": manifest.reference})
    else:
        out.print(f"removed {manifest.reference}", markup=False)


def _evaluations(path: Path | None) -> tuple[Evaluation, ...]:
    if path is None:
        return ()
    try:
        return tuple(TypeAdapter(list[Evaluation]).validate_json(path.read_bytes()))
    except OSError as error:
        raise typer.BadParameter(f"--evaluation: cannot read {path} ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise typer.BadParameter(f"--evaluation: {path}: {place}: {first['msg']}") from None


def _warn(manifest: Manifest) -> None:
    licence = manifest.licence
    if licence.id == UNKNOWN:
        err.print(f"{manifest.reference}: nothing says its licence; give it with --licence when adding", markup=False)
    for restriction in licence.restrictions:
        err.print(f"its licence, {printable(licence.id)}, restricts use: {printable(restriction)}", markup=False)


def _say_moved(alias: str, was: str | None, now: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"alias": alias, "was": was, "now": now})
    elif was == now:
        out.print(f"{alias} is {now} already", markup=False)
    else:
        out.print(f"{alias} is {now} now" + (f", it was {was}" if was else ""), markup=False)
