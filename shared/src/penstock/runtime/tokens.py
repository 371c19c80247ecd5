"""Streamed text to `llm.tokens`, at once and outside the transaction: at least once, repeats marked by sequence."""

from __future__ import annotations

from typing import Any

import structlog
from confluent_kafka import KafkaError, Message, Producer

from penstock.contracts import headers as names_of
from penstock.contracts.errors import StageError
from penstock.contracts.events import TokensGenerated
from penstock.contracts.topics import TOKENS
from penstock.runtime import telemetry
from penstock.runtime.kafka import Names, enqueue
from penstock.runtime.stage import Inbound

_log = structlog.get_logger()


class KafkaTokens:
    """A TokenSink over a producer of its own. A piece that cannot be delivered is logged: the result still has it."""

    def __init__(self, config: dict[str, Any], names: Names) -> None:
        self._producer = Producer({**config, "linger.ms": 0})
        self._topic = names.topic(TOKENS)

    def send(self, tokens: TokensGenerated, inbound: Inbound) -> None:
        """Hand a piece to the client; waits for the broker only while the client's queue is full."""
        if inbound.event is None:
            raise StageError("tokens belong to an event", code="unexpected_event")
        context = inbound.event.context
        enqueue(
            self._producer,
            self._topic,
            tokens.encode(),
            context.conversation_id.encode(),
            headers=[*names_of.of_context(context, tokens.schema_ref()), *telemetry.inject(inbound.span)],
            on_delivery=self._delivered,
        )

    def close(self) -> None:
        """Deliver what is queued."""
        self._producer.flush(5)

    @staticmethod
    def _delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            _log.warning("runtime.tokens.undelivered", error=error.name(), topic=message.topic())
