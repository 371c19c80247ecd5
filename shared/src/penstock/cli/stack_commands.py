"""`up`, `down`, `status`, `demo`, `vault-key`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from penstock.cli import demo as demonstration
from penstock.cli.errors import StackError
from penstock.cli.options import Bootstrap, Json, Prefix, duration, print_json, reporting
from penstock.cli.probe import Figures, figures, readiness
from penstock.cli.render import out
from penstock.cli.services import SERVICES
from penstock.cli.stack import Stack, UpReport, Wanted, alive
from penstock.cli.state import StackState, StateFolder
from penstock.cli.vault_key import new_vault_key

NoDocker = Annotated[
    bool, typer.Option("--no-docker", help="Run broker and viewer from their jars even where Docker answers.")
]
NoViewer = Annotated[bool, typer.Option("--no-viewer", help="Bring no trace viewer up.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(demo)
    app.command("vault-key")(vault_key)


def up(
    no_docker: NoDocker = False,
    no_viewer: NoViewer = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Bring the local stack up: Kafka, trace viewer, topics and the five services, each a process.

    What is up already is kept. With `--bootstrap` the broker there is used and none is started.

    Examples: `penstock up`, `penstock up --no-docker`, `penstock up --bootstrap broker:9092`
    """
    folder = StateFolder.configured()
    with reporting() as report:
        done = Stack(folder, report).up(
            Wanted(docker=not no_docker, viewer=not no_viewer, bootstrap=bootstrap, prefix=prefix)
        )
    if as_json:
        print_json({**_describe(folder, done.state), "started": done.started, "kept": done.kept})
        return
    say_up(done)
    out.print(f"broker  {done.state.broker.address}", markup=False)
    if done.state.viewer is not None:
        out.print(f"viewer  {done.state.viewer.address}", markup=False)
    out.print(f"logs    {folder.path / 'logs'}", markup=False)
    out.print("next    `penstock send FILE.jsonl --wait`, `penstock status`, `penstock down`", markup=False)


def say_up(done: UpReport) -> None:
    """One line: what was started, or that everything was up."""
    if done.was_up:
        out.print("the stack was up already; nothing was started", markup=False)
        return
    line = f"up: started {', '.join(done.started)}"
    out.print(line + (f"; kept {', '.join(done.kept)}" if done.kept else ""), markup=False, style="green")


def down(
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Delete what the local broker holds, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """End what `penstock up` started, and nothing else. The local broker's records are kept.

    Services get SIGTERM and 10 s first, then viewer and broker. Containers are removed with their records.

    Examples: `penstock down`, `penstock down --delete-data`
    """
    with reporting() as report:
        ended = Stack(StateFolder.configured(), report).down(delete_data=delete_data)
    if as_json:
        print_json({"ended": ended})
    elif not ended:
        out.print("nothing to end: no stack is recorded in " + str(StateFolder.configured().path), markup=False)
    for name, how in {} if as_json else ended.items():
        out.print(f"{name:<18} {how}", markup=False)


def status(as_json: Json = False) -> None:
    """Show each component of the local stack: whether it runs and is ready, lag, records in, out and failed.

    Exit status 0 where everything runs and is ready, else 1.

    Examples: `penstock status`, `penstock status --json`
    """
    folder = StateFolder.configured()
    state = folder.load()
    if state is None:
        raise StackError(f"no stack is recorded in {folder.path}; bring one up with `penstock up`")
    described = _describe(folder, state)
    if as_json:
        print_json(described)
    else:
        out.print(_table(described))
    if not described["ok"]:
        raise typer.Exit(1)


def demo(
    no_docker: NoDocker = False,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="Folder with requests.jsonl and expectations.json.")
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait for all results, e.g. 5m.")] = "5m",
) -> None:
    """Bring the stack up, send the sample requests, print each result, and say where to look.

    Exit status 0 only where every sample got its terminal result and each is as the samples' folder expects.

    Examples: `penstock demo`, `penstock demo --no-docker`
    """
    wait_s = duration(timeout) or 0.0
    if not demonstration.run(docker=not no_docker, folder=samples, wait_s=wait_s, say_up=say_up):
        raise typer.Exit(1)


def vault_key() -> None:
    """Print a new vault key, `KID:BASE64`, for PENSTOCK_VAULT_KEYS of anonymize and postprocess.

    To rotate, put the new key first and keep the old ones behind it: `NEW,OLD`.

    Examples: `export PENSTOCK_VAULT_KEYS=$(penstock vault-key)`
    """
    typer.echo(new_vault_key())


def _describe(folder: StateFolder, state: StackState) -> dict[str, Any]:
    running = alive(folder, state)
    components: list[dict[str, Any]] = []
    for name, backing in (("broker", state.broker), ("viewer", state.viewer)):
        if backing is not None:
            runs = running.get(name, True)  # one that was only named is not ours to look after
            components.append(
                {"name": name, "kind": backing.kind, "running": runs, "ready": runs, "address": backing.address}
            )
    for name in SERVICES:
        service = state.services.get(name)
        if service is None:
            components.append({"name": name, "kind": "process", "running": False, "ready": False})
            continue
        runs = running[name]
        answer = readiness(service.port) if runs else None
        found = figures(service.port) if runs else None
        components.append(
            {
                "name": name,
                "kind": "process",
                "pid": service.pid,
                "running": runs,
                "ready": answer is not None and answer.ready,
                "why": answer.why if answer is not None else "ended",
                "address": f"127.0.0.1:{service.port}",
                "log": str(service.log),
                **({} if found is None else _figures(found)),
            }
        )
    return {
        "ok": all(component["ready"] for component in components),
        "bootstrap": state.broker.address,
        "prefix": state.prefix,
        "viewer": state.viewer.address if state.viewer is not None else None,
        "state_dir": os.fspath(folder.path),
        "components": components,
    }


def _figures(found: Figures) -> dict[str, int]:
    lags = {"lag": found.lag, "bulk_lag": found.lag_bulk}
    return {**lags, "in": found.taken_in, "out": found.put_out, "failed": found.failed}


def _table(described: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("component", "pid", "state", "ready"):
        table.add_column(heading)
    for heading in ("lag", "of it bulk", "in", "out", "failed"):
        table.add_column(heading, justify="right")
    table.add_column("address")
    for component in described["components"]:
        runs, ready = component["running"], component["ready"]
        table.add_row(
            component["name"],
            str(component.get("pid", component["kind"])),
            "[green]running[/]" if runs else "[red]ended[/]",
            "[green]yes[/]" if ready else f"[red]no[/] {escape(component.get('why', ''))}",
            *(str(component.get(key, "")) for key in ("lag", "bulk_lag", "in", "out", "failed")),
            component.get("address", ""),
        )
    return table
