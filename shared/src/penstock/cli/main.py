"""The `penstock` command: what it is made of, and how an error ends it.

Exit status: 0 done, 1 not done (a sentence on standard error says why and what to do), 2 wrong usage.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from typer.core import TyperGroup

from penstock import __version__
from penstock.cli import (
    acl_commands,
    cancel_command,
    diff_command,
    inspect_commands,
    message_commands,
    models_commands,
    quota_commands,
    replay_command,
    stack_commands,
)
from penstock.cli.errors import CommandError
from penstock.cli.plugins import plugins
from penstock.cli.render import err
from penstock.contracts.errors import PenstockError
from penstock.local.errors import LocalStackError
from penstock.runtime import access


class _Root(TyperGroup):
    """Adds other packages' commands, and turns the errors made for people into one sentence and exit status 1."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {**plugins(), **self.commands}

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() in access.NOT_AUTHORIZED:
                _say(access.to_do(cause, os.environ.get("PENSTOCK_KAFKA_SASL_USERNAME", "")))
            else:
                _say(f"Kafka refused or did not answer: {cause.str()} ({cause.name()}); look at `penstock status`")
        except (CommandError, PenstockError, LocalStackError) as error:
            _say(str(error))
        except BrokenPipeError:
            raise typer.Exit(1) from None  # whoever read the output has gone
        raise typer.Exit(1)


def _say(sentence: str) -> None:
    err.print("error: ", style="red", end="")
    err.print(sentence, markup=False)


app = typer.Typer(
    cls=_Root,
    name="penstock",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="LLM pipelines on Kafka: bring the local stack up, send requests, see what became of them.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """LLM pipelines on Kafka: bring the local stack up, send requests, see what became of them."""


stack_commands.register(app)
message_commands.register(app)
cancel_command.register(app)
inspect_commands.register(app)
acl_commands.register(app)
quota_commands.register(app)
replay_command.register(app)
diff_command.register(app)
models_commands.register(app)
