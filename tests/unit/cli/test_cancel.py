"""`penstock cancel`: what it refuses before anything is sent, and the commands that it makes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from penstock.cli.cancelling import Subject
from penstock.cli.main import app
from penstock.contracts.control import Cancel, Scope


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say which"),
        (("r1", "--tenant", "acme"), "say which"),
        (("--tenant", "white space", "--yes"), "tenant: expected"),
        (("--conversation", "c1", "--wait"), "--wait"),
        (("r1", "--undo", "--wait"), "--wait"),
        (("--list", "r1"), "--list"),
        (("r1", "--reason", "x" * 300), "--reason: 300"),
    ],
)
def test_wrong_usage_is_refused_before_a_broker_is_asked(arguments: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(app, ["cancel", *arguments, "--bootstrap", "127.0.0.1:1"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_tenants_work_is_cancelled_only_after_a_question() -> None:
    done = CliRunner().invoke(app, ["cancel", "--tenant", "acme", "--bootstrap", "127.0.0.1:1"], input="n\n")
    assert done.exit_code == 1
    assert "cancel all that tenant acme has sent" in done.stderr


@pytest.mark.parametrize("scope", ["request", "conversation", "tenant"])
def test_a_command_stands_under_the_key_that_takes_it_back(scope: Scope) -> None:
    subject = Subject(scope, "x-1")
    command = subject.cancel(5, "enough")
    assert (command.scope, command.name, command.key) == (scope, "x-1", subject.key)
    assert Cancel.model_validate_json(command.encode()) == command
