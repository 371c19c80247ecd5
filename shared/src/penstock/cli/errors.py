"""What ends a command early, each with a sentence that says what to do.

    CommandError              exit status 1
    ├── NoBroker              no address, or nobody answers at it
    ├── StackError            the local stack did not come up or go down
    └── NotFound              what was asked for is not there

Wrong options and arguments are `typer.BadParameter`, exit status 2. Errors of the library
(`PenstockError`, `LocalStackError`) and of the Kafka client end a command in the same way.
"""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot go on; the message says why and what to do."""


class NoBroker(CommandError):
    """There is no broker address, or no broker answers at it."""


class StackError(CommandError):
    """The local stack did not come up or go down."""


class NotFound(CommandError):
    """A request, a dead letter or a trace that is not there."""
