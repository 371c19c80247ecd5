"""Commands on `llm.control`: publishing them, taking them back, and reading what is in force."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaError, Message
from pydantic import ValidationError

from penstock.cli.errors import CommandError
from penstock.cli.reading import scan
from penstock.cli.target import Target
from penstock.contracts import headers as names_of
from penstock.contracts.control import Cancel, Scope, key_of
from penstock.contracts.topics import CONTROL, load_topics
from penstock.runtime.kafka import enqueue

_FLUSH_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What a command is about."""

    scope: Scope
    name: str

    @property
    def key(self) -> str:
        """Of the command's record."""
        return key_of(self.scope, self.name)

    def cancel(self, now_ms: int, reason: str | None) -> Cancel:
        """The command that cancels it, as of now."""
        return Cancel(
            request_id=self.name if self.scope == "request" else None,
            conversation_id=self.name if self.scope == "conversation" else None,
            tenant=self.name if self.scope == "tenant" else None,
            reason=reason,
            issued_ms=now_ms,
        )


def publish(target: Target, commands: dict[str, Cancel | None]) -> None:
    """Write each command, or None to take it back, under its key; raises CommandError where one is not acknowledged."""
    target.partitions(CONTROL)  # a missing topic is told before anything is sent
    producer = target.producer()
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    headers = [(names_of.SCHEMA, Cancel.schema_ref().encode())]
    for key, command in commands.items():
        enqueue(
            producer,
            target.topic(CONTROL),
            command.encode() if command is not None else None,
            key.encode(),
            headers=headers if command is not None else (),
            on_delivery=delivered,
        )
    left = producer.flush(_FLUSH_LIMIT_S)
    if failures or left:
        why = failures[0].str() if failures else f"not acknowledged within {_FLUSH_LIMIT_S:.0f} s"
        raise CommandError(f"llm.control did not take the command ({why}); nothing may be cancelled, try again")


def in_force(target: Target, now_ms: int) -> list[Cancel]:
    """The commands that services go by now, oldest first; what is no command of this release is passed over."""
    hours = next(topic.retention_hours for topic in load_topics() if topic.name == CONTROL)
    commands: dict[str, Cancel] = {}
    for record in scan(target, CONTROL):
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            commands.pop(key, None)
            continue
        try:
            command = Cancel.model_validate_json(record.value)
        except ValidationError:
            continue
        if command.issued_ms + hours * 3_600_000 >= now_ms:
            commands[command.key] = command
    return sorted(commands.values(), key=lambda command: command.issued_ms)
