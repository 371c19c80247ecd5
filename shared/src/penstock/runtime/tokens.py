"""Streamed text to `llm.tokens`, at once and outside the transaction: at least once, repeats marked by sequence."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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

POLL_S = 0.2
CLOSE_S = 5.0


@dataclass(slots=True)
class _UnderWay:
    """What was sent of a request and the broker has not spoken of yet, and what waits for that."""

    pieces: int = 0
    then: list[Callable[[], None]] = field(default_factory=list)


class KafkaTokens:
    """A TokenSink over a producer of its own. A piece that cannot be delivered is logged: the result still has it.

    From the first piece on, a thread hears the broker's word on each: between two pieces nobody else does.
    """

    def __init__(
        self, config: dict[str, Any], names: Names, client: Callable[[dict[str, Any]], Any] = Producer
    ) -> None:
        self._producer = client({**config, "linger.ms": 0})
        self._topic = names.topic(TOKENS)
        self._changing = threading.Lock()
        self._under_way: dict[str, _UnderWay] = {}
        self._closing = threading.Event()
        self._listener: threading.Thread | None = None

    def send(self, tokens: TokensGenerated, inbound: Inbound) -> None:
        """Hand a piece to the client; waits for the broker only while the client's queue is full."""
        if inbound.event is None:
            raise StageError("tokens belong to an event", code="unexpected_event")
        context = inbound.event.context
        with self._changing:
            self._under_way.setdefault(tokens.request_id, _UnderWay()).pieces += 1
        try:
            enqueue(
                self._producer,
                self._topic,
                tokens.encode(),
                context.conversation_id.encode(),
                headers=[*names_of.of_context(context, tokens.schema_ref()), *telemetry.inject(inbound.span)],
                on_delivery=partial(self._delivered, tokens.request_id),
            )
        except BaseException:
            self._settle(tokens.request_id)
            raise
        self._listen()

    def when_delivered(self, request_id: str, then: Callable[[], None]) -> None:
        """See TokenSink."""
        with self._changing:
            waited_for = self._under_way.get(request_id)
            if waited_for is not None:
                waited_for.then.append(then)
                return
        then()

    def close(self) -> None:
        """Deliver what is queued."""
        self._closing.set()
        if self._listener is not None:
            self._listener.join(CLOSE_S)
        self._producer.flush(CLOSE_S)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = threading.Thread(target=self._hear, name="tokens", daemon=True)
            self._listener.start()

    def _hear(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(POLL_S)

    def _delivered(self, request_id: str, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            _log.warning("runtime.tokens.undelivered", error=error.name(), topic=message.topic())
        self._settle(request_id)

    def _settle(self, request_id: str) -> None:
        with self._changing:
            one = self._under_way[request_id]
            one.pieces -= 1
            if one.pieces:
                return
            del self._under_way[request_id]
        for then in one.then:
            then()
