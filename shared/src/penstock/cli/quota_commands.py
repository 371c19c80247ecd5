"""`quota`: what each service's user may take of the brokers, as a file declares it and as the brokers have it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.errors import CommandError
from penstock.cli.options import Bootstrap, Json, PrincipalPrefix, print_json
from penstock.cli.render import err, out
from penstock.cli.target import resolve
from penstock.contracts.topics import Party
from penstock.runtime import quotas
from penstock.runtime.acl import PARTIES, PRINCIPAL_PREFIX

quota_app = typer.Typer(no_args_is_help=True, help="What each service's user may take of the brokers, if a file says.")

Declared = Annotated[
    Path | None,
    typer.Option(
        "--quotas",
        envvar="PENSTOCK_QUOTAS",
        metavar="FILE",
        help="TOML file, a table for each party; deploy/quotas.toml is one. Without it no quota is declared.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(quota_app, name="quota")


@quota_app.command("plan")
def quota_plan(
    file: Declared = None, principal_prefix: PrincipalPrefix = PRINCIPAL_PREFIX, as_json: Json = False
) -> None:
    """Show the quotas that the file declares. No broker is asked.

    Examples: `penstock quota plan --quotas deploy/quotas.toml`
    """
    wanted = quotas.plan(_read(file), principal_prefix)
    if as_json:
        print_json(wanted)
    else:
        out.print(_table(quotas.compare(wanted, {}, wanted), present=False))


@quota_app.command("apply")
def quota_apply(
    file: Declared = None,
    principal_prefix: PrincipalPrefix = PRINCIPAL_PREFIX,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Give each party that the file names exactly the quotas that stand there; the others are left alone.

    A quota that was taken out of a party's table is removed. Doing it again changes nothing. The brokers need users,
    and this command one who may alter the cluster's configuration. Nothing need be started again.

    Examples: `penstock quota apply --quotas deploy/quotas.toml --bootstrap broker:9093`
    """
    wanted = quotas.plan(_read(file), principal_prefix)
    target = resolve(bootstrap, None)
    target.reach()
    _tell(quotas.apply(target.settings, wanted), f"changed on {target.bootstrap}", as_json)


@quota_app.command("check")
def quota_check(
    file: Declared = None,
    principal_prefix: PrincipalPrefix = PRINCIPAL_PREFIX,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Show every party's quotas on the brokers beside those that are declared.

    Exit status 0 where they are the same, else 1: a quota that nobody declared is one too many.

    Examples: `penstock quota check --quotas deploy/quotas.toml --bootstrap broker:9093`
    """
    wanted = quotas.plan(_read(file) if file is not None else {}, principal_prefix)
    target = resolve(bootstrap, None)
    target.reach()
    rows = quotas.check(target.settings, wanted, quotas.users(principal_prefix))
    ok = all(row.ok for row in rows)
    if as_json:
        print_json({"ok": ok, "quotas": [asdict(row) for row in rows]})
    elif rows:
        out.print(_table(rows))
    else:
        out.print(f"no quota is declared, and none is set on {target.bootstrap}", markup=False)
    if not ok:
        err.print("`penstock quota apply` brings the brokers to the file, `penstock quota remove` takes all away")
        raise typer.Exit(1)


@quota_app.command("remove")
def quota_remove(
    parties: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTY]...", help="Such as safety; all by default.")
    ] = None,
    principal_prefix: PrincipalPrefix = PRINCIPAL_PREFIX,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Take the quotas of these parties away, of all where none is named.

    Examples: `penstock quota remove upstream --bootstrap broker:9093`
    """
    ours = quotas.users(principal_prefix, [_party(name) for name in parties or PARTIES])
    target = resolve(bootstrap, None)
    target.reach()
    _tell(quotas.remove(target.settings, ours), f"removed on {target.bootstrap}", as_json)


def _read(file: Path | None) -> dict[Party, quotas.Quota]:
    if file is None:
        raise CommandError(
            "no quota is declared: name a file with --quotas or PENSTOCK_QUOTAS, such as deploy/quotas.toml"
        )
    return quotas.read(file)


def _party(name: str) -> Party:
    for party in PARTIES:
        if party == name:
            return party
    raise typer.BadParameter(f"there is no party {name}; they are {', '.join(PARTIES)}")


def _tell(changed: list[quotas.Row], what: str, as_json: bool) -> None:
    if as_json:
        print_json({"changed": [asdict(row) for row in changed]})
    elif changed:
        out.print(_table(changed))
        out.print(f"{len(changed)} {what}", markup=False)
    else:
        out.print("nothing to change", markup=False)


def _table(rows: Iterable[quotas.Row], *, present: bool = True) -> Table:
    """`present`: with what the brokers have, or had."""
    table = Table(box=None, pad_edge=False)
    for heading in ("user", "quota", "declared", *(("on the brokers",) if present else ())):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.user, row.name, _show(row.declared), *((_show(row.present),) if present else ()))
    return table


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:,.10g}"
