"""What is cancelled now: the commands in force, and whether one applies to a request.

Pure and bounded; it knows no Kafka. `penstock.runtime.control` keeps it up to date from `llm.control`,
and the stages' threads ask it: once a record, and for what is in flight whenever `generation` has changed.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from penstock.contracts.control import Cancel, key_of
from penstock.contracts.errors import Cancelled
from penstock.contracts.events import RequestContext


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Cancellations:
    """Commands by key, the oldest first out. One thread changes it, any may ask."""

    def __init__(self, *, max_entries: int, max_age_ms: int, clock_ms: Callable[[], int] = _wall_ms) -> None:
        self._max_entries = max_entries
        self._max_age_ms = max_age_ms
        self._clock_ms = clock_ms
        self._commands: OrderedDict[str, Cancel] = OrderedDict()
        self.generation = 0
        """Grows with each command that comes or is taken back."""

    def __len__(self) -> int:
        return len(self._commands)

    def put(self, command: Cancel) -> None:
        """A command has come; one that has outlived the topic's retention is none."""
        self._commands.pop(command.key, None)
        if command.issued_ms + self._max_age_ms >= self._clock_ms():
            self._commands[command.key] = command
        while len(self._commands) > self._max_entries:
            self._commands.popitem(last=False)
        self.generation += 1

    def expire(self) -> None:
        """Forget what has outlived the topic's retention."""
        oldest = self._clock_ms() - self._max_age_ms
        while self._commands and next(iter(self._commands.values())).issued_ms < oldest:
            self._commands.popitem(last=False)

    def withdraw(self, key: str) -> None:
        """A command is taken back."""
        self._commands.pop(key, None)
        self.generation += 1

    def match(self, context: RequestContext) -> Cancel | None:
        """The command that applies to a request, None where none does.

        A request id is cancelled whenever its record was written; of a conversation or a tenant, what was
        submitted after the command was issued goes on.
        """
        if not self._commands:
            return None
        oldest = self._clock_ms() - self._max_age_ms
        command = self._commands.get(key_of("request", context.request_id))
        if command is not None and command.issued_ms >= oldest:
            return command
        for scope_key in (key_of("conversation", context.conversation_id), key_of("tenant", context.tenant)):
            command = self._commands.get(scope_key)
            if command is not None and command.issued_ms >= max(oldest, context.submitted_ms):
                return command
        return None

    def error(self, context: RequestContext) -> Cancelled | None:
        """The error that ends a request to which a command applies."""
        command = self.match(context)
        if command is None:
            return None
        because = f": {command.reason}" if command.reason else ""
        return Cancelled(f"cancelled by its {_SCOPES[command.scope]}{because}", field=command.scope).about(context)


_SCOPES = {"request": "request id", "conversation": "conversation", "tenant": "tenant"}
