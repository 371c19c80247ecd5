"""`replay`: running recorded events again under other versions, into topics of their own."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from penstock import __version__
from penstock.cli import replay_run
from penstock.cli.errors import CommandError
from penstock.cli.letter_filter import STAGES
from penstock.cli.moments import parse_moment, show_moment
from penstock.cli.options import Bootstrap, Json, Prefix, print_json
from penstock.cli.rates import rated
from penstock.cli.render import counted, err, out
from penstock.cli.replays import MARKER, Manifest, Replays, check_prefix
from penstock.cli.sending import wall_ms
from penstock.cli.services import check_installed
from penstock.cli.target import resolve
from penstock.cli.window import inputs_of, message_in, spans_of

INTERRUPTED = 130
_PREFIX = "PENSTOCK_"
_NOT_SET = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        "TOPIC_PREFIX",
        "HTTP_HOST",
        "HTTP_PORT",
        "INSTANCE",
        "EXACTLY_ONCE",
        "INTERACTIVE_DELIVERY",
        "VAULT_KEYS",
    )
)
_OF_A_NEW_ONE = ("--from", "--to", "--stage", "--input", "--policy", "--model", "--set", "--tenant", "--limit")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    *,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Where the window begins: ISO 8601, or e.g. -7d.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Where it ends, itself not in it; without it, now.")
    ] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Whose records to run again.")] = None,
    into: Annotated[
        str | None, typer.Option("--into", metavar="PREFIX", help="Before the names of the replay's own topics.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="TOPIC", help="Of the stage's input topics only this; may be repeated."),
    ] = None,
    policy: Annotated[Path | None, typer.Option("--policy", metavar="FILE", help="A policy, for safety.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="A model's folder, for inference or preprocess.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the stage, e.g. safety_timeout_s=60."),
    ] = None,
    tenant: Annotated[list[str] | None, typer.Option("--tenant", help="Only this tenant's; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many of each input topic.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted replay.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the replay under this prefix first.")] = False,
    remove: Annotated[
        str | None, typer.Option("--remove", metavar="PREFIX", help="Delete a replay's topics and group, and end.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Run what a stage has read in a window of time once more, under other versions, into topics of its own.

    The records are copied under the prefix of `--into`, and the stage's own process runs on the copies until each
    has its outcome. Live topics are only read, outside their groups. Deadlines are left out. Interrupted, it goes on
    with `--resume`. `penstock diff` compares; `--remove` deletes.

    Examples: `penstock replay --from=-7d --stage safety --input llm.completions --policy new.yaml --into strict.`,
    `penstock replay --into strict. --resume`, `penstock replay --remove strict.`
    """
    target = resolve(bootstrap, prefix)
    if remove is not None:
        if into is not None or resume or overwrite:
            raise typer.BadParameter("--remove stands alone, with --yes")
        _remove(Replays(target, _checked(remove, target.prefix)), yes=yes, as_json=as_json)
        return
    if into is None:
        raise typer.BadParameter("give the prefix of the replay's own topics with --into")
    replays = Replays(target, _checked(into, target.prefix))
    given: tuple[object, ...] = (since, until, stage, only, policy, model, setting, tenant, limit)
    check_installed()
    if resume:
        wrong = [name for name, value in zip(_OF_A_NEW_ONE, given, strict=True) if value]
        if wrong or overwrite:
            raise typer.BadParameter(f"{(wrong or ['--overwrite'])[0]}: a resumed replay is what it was begun as")
        manifest = replays.demand()
        if manifest.live_prefix != target.prefix:
            raise CommandError(
                f"this is a replay of the topics under {manifest.live_prefix!r}, not {target.prefix!r}; give --prefix"
            )
        replays.complete(manifest)
        _run(replays, manifest, fresh=False, as_json=as_json)
        return
    if stage not in STAGES:
        raise typer.BadParameter(f"--stage: expected one of {', '.join(STAGES)}")
    if since is None:
        raise typer.BadParameter("say where the window begins with --from, e.g. --from=-7d")
    manifest = _manifest(
        replays,
        stage,
        window=_window(since, until),
        inputs=_inputs(stage, only or []),
        settings=_settings(stage, policy, model, setting or []),
        tenants=_tenants(stage, tenant or []),
        limit=limit,
    )
    run = replay_run.Run(replays, manifest)
    replay_run.check_settings(stage, manifest.settings, run.environment())
    if overwrite and replays.own.topic(MARKER) in replays.present():
        _remove(replays, yes=yes, as_json=None)
    replays.refuse_taken()
    replays.make(manifest)
    _run(replays, manifest, fresh=True, as_json=as_json)


def _checked(into: str, live: str) -> str:
    wrong = check_prefix(into, live)
    if wrong is not None:
        raise typer.BadParameter(f"--into: {wrong}")
    return into


def _window(since: str, until: str | None) -> tuple[int, int]:
    now_ms = wall_ms()
    try:
        from_ms, to_ms = parse_moment(since, now_ms), parse_moment(until or "now", now_ms)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not 0 <= from_ms < to_ms:
        raise typer.BadParameter(f"the window from {since} to {until or 'now'} is empty")
    return from_ms, to_ms


def _inputs(stage: str, only: list[str]) -> tuple[str, ...]:
    inputs = inputs_of(stage)
    for name in only:
        if name not in inputs:
            raise typer.BadParameter(f"--input: {stage} reads {' and '.join(inputs)}, not {name}")
    kinds = {message_in(name) for name in only}
    return tuple(name for name in inputs if not only or message_in(name) in kinds)  # both lanes


def _tenants(stage: str, tenants: list[str]) -> tuple[str, ...]:
    if tenants and stage == "preprocess":
        raise typer.BadParameter("--tenant: a request has its tenant for certain only behind preprocess")
    return tuple(tenants)


def _settings(stage: str, policy: Path | None, model: Path | None, given: list[str]) -> dict[str, str]:
    """The variables that the replay sets; a bad one is a usage error."""
    settings: dict[str, str] = {}
    if policy is not None:
        if stage != "safety":
            raise typer.BadParameter("--policy is of safety")
        settings[f"{_PREFIX}SAFETY_POLICY"] = _existing(policy, "--policy", folder=False)
    if model is not None:
        if stage not in ("inference", "preprocess"):
            raise typer.BadParameter("--model is of inference and preprocess; other models have settings: --set")
        settings[f"{_PREFIX}MODEL_DIR"] = _existing(model, "--model", folder=True)
    for one in given:
        name, equals, value = one.partition("=")
        variable = f"{_PREFIX}{name.upper().removeprefix(_PREFIX)}"
        if not equals or not name:
            raise typer.BadParameter(f"--set: expected NAME=VALUE, got {one!r}")
        if variable in _NOT_SET or variable.startswith(f"{_PREFIX}KAFKA_"):
            raise typer.BadParameter(f"--set: {variable} is not for a replay to set")
        if variable in settings:
            raise typer.BadParameter(f"--set: {variable} is set twice")
        settings[variable] = value
    return settings


def _existing(path: Path, option: str, *, folder: bool) -> str:
    found = path.expanduser().resolve()  # the stage's working folder is another
    if not (found.is_dir() if folder else found.is_file()):
        raise typer.BadParameter(f"{option}: {path} is no {'folder' if folder else 'file'}")
    return str(found)


def _manifest(
    replays: Replays,
    stage: str,
    *,
    window: tuple[int, int],
    inputs: tuple[str, ...],
    settings: dict[str, str],
    tenants: tuple[str, ...],
    limit: int | None,
) -> Manifest:
    live = replays.live
    return Manifest(
        release=__version__,
        created_ms=wall_ms(),
        live_prefix=live.prefix,
        stage=stage,
        inputs=inputs,
        from_ms=window[0],
        to_ms=window[1],
        spans=spans_of(live, inputs, *window),
        partitions=max(len(live.partitions(name)) for name in inputs),
        tenants=tenants,
        limit=limit,
        settings=settings,
        digests=replay_run.digests_of(settings),
        topics=replays.topic_names(),
    )


def _run(replays: Replays, manifest: Manifest, *, fresh: bool, as_json: bool) -> None:
    run = replay_run.Run(replays, manifest)
    began = time.monotonic()
    try:
        with _terminable():
            run.run(rated, undo=replays.remove if fresh else None)
    except KeyboardInterrupt:
        err.print(
            f"interrupted; go on with `penstock replay --into {replays.prefix} --resume`, or delete it with "
            f"`penstock replay --remove {replays.prefix}`",
            markup=False,
        )
        raise typer.Exit(INTERRUPTED) from None
    seconds = time.monotonic() - began
    if as_json:
        print_json(
            {
                "into": replays.prefix,
                "stage": manifest.stage,
                "from": show_moment(manifest.from_ms),
                "to": show_moment(manifest.to_ms),
                "copied": dict(run.copied.records),
                "outcomes": dict(run.outcomes),
                "seconds": round(seconds, 1),
            }
        )
        return
    total = run.copied.total
    of = ", ".join(f"{count} of {name}" for name, count in run.copied.records.items()) or "no record in the window"
    out.print(f"{total} replayed in {seconds:.1f} s: {of}", markup=False)
    if total:
        out.print(f"outcomes: {counted(dict(run.outcomes))}", markup=False)
    out.print(
        f"compare with `penstock diff --into {replays.prefix}`; "
        f"delete with `penstock replay --remove {replays.prefix}`",
        markup=False,
    )


def _remove(replays: Replays, *, yes: bool, as_json: bool | None) -> None:
    """Delete the replay; without `as_json` nothing is printed."""
    marker = replays.own.topic(MARKER)
    if marker not in replays.present():
        replays.demand()
    if not yes:
        typer.confirm(f"delete the replay under {replays.prefix!r} on {replays.live.bootstrap}?", abort=True, err=True)
    deleted = replay_run.remove(replays)
    if as_json:
        print_json({"deleted": deleted})
    elif as_json is not None:
        out.print(f"{len(deleted)} topics deleted", markup=False)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: the stage's process is ended with it."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before: Callable[..., object] | int | None = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
