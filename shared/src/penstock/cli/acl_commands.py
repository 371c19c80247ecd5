"""`acl`: the ACLs that the services need, on paper and on a broker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import typer
from rich.table import Table

from penstock.cli.options import Bootstrap, Json, Prefix, PrincipalPrefix, print_json
from penstock.cli.render import err, out
from penstock.cli.state import StateFolder
from penstock.cli.target import resolve
from penstock.runtime import acl

acl_app = typer.Typer(no_args_is_help=True, help="Who may read and write which topic, and bringing a broker to it.")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(acl_app, name="acl")


@acl_app.command("plan")
def acl_plan(
    principal_prefix: PrincipalPrefix = acl.PRINCIPAL_PREFIX, prefix: Prefix = None, as_json: Json = False
) -> None:
    """Show every ACL that the services, upstream and an operator need. No broker is asked.

    Examples: `penstock acl plan`, `penstock acl plan --prefix eu. --json`
    """
    if prefix is None:
        state = StateFolder.configured().load()
        prefix = state.prefix if state is not None else ""
    grants = acl.plan(prefix, principal_prefix)
    if as_json:
        print_json([asdict(grant) for grant in grants])
    else:
        out.print(_table(grants))


@acl_app.command("apply")
def acl_apply(
    principal_prefix: PrincipalPrefix = acl.PRINCIPAL_PREFIX,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Create the ACLs that are missing; nothing is ever deleted. Doing it again changes nothing.

    The broker needs an authorizer and this command a user who may alter the cluster. Users themselves, with their
    passwords, are yours to create.

    Examples: `penstock acl apply --bootstrap broker:9093`
    """
    target = resolve(bootstrap, prefix)
    target.reach()
    created = acl.apply(target.admin_options, acl.plan(target.prefix, principal_prefix))
    if as_json:
        print_json({"created": [asdict(grant) for grant in created]})
    elif created:
        out.print(_table(created))
        out.print(f"{len(created)} created on {target.bootstrap}", markup=False)
    else:
        out.print("nothing to create", markup=False)


@acl_app.command("check")
def acl_check(
    principal_prefix: PrincipalPrefix = acl.PRINCIPAL_PREFIX,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Compare the broker's ACLs with what is needed: what is missing, and what allows too much.

    Too much is whatever else these users may do, and whoever else may read a restricted topic. Exit status 0 where
    the broker has exactly what is needed, else 1. Super users are in the broker's configuration, not in its ACLs.

    Examples: `penstock acl check --bootstrap broker:9093`
    """
    target = resolve(bootstrap, prefix)
    target.reach()
    found = acl.check(
        target.admin_options,
        acl.plan(target.prefix, principal_prefix),
        prefix=target.prefix,
        principal_prefix=principal_prefix,
    )
    if as_json:
        print_json(
            {"ok": found.ok, "missing": [asdict(g) for g in found.missing], "excess": [asdict(g) for g in found.excess]}
        )
    else:
        for title, grants in (("missing", found.missing), ("too much", found.excess)):
            if grants:
                out.print(f"{title}:", markup=False)
                out.print(_table(grants))
        if found.ok:
            out.print(f"the ACLs on {target.bootstrap} are exactly what is needed", markup=False)
        if found.missing:
            err.print("create what is missing with `penstock acl apply`", markup=False)
        if found.excess:
            err.print("take away what is too much with your broker's kafka-acls", markup=False)
    if not found.ok:
        raise typer.Exit(1)


def _table(grants: Iterable[acl.Grant]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("principal", "may", "resource", "name", "pattern", "host"):
        table.add_column(heading)
    for grant in grants:
        resource = grant.resource.lower().replace("_", " ")
        table.add_row(grant.principal, grant.operation.lower(), resource, grant.name, grant.pattern.lower(), grant.host)
    return table
