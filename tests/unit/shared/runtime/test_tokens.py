"""Streamed pieces on their way to the broker, and what waits for its word on them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import CapturingLogger
from tests.support.generation import event_of, job_of

from penstock.contracts.events import TokensGenerated
from penstock.runtime import tokens
from penstock.runtime.kafka import Names
from penstock.runtime.tokens import KafkaTokens

Delivery = Callable[[KafkaError | None, Any], None]


class Client:
    """A producer that delivers when the test says so, in the thread that polls."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.sent: list[Delivery] = []
        self.refuses = False
        self._due: list[tuple[Delivery, KafkaError | None]] = []
        self._changed = threading.Condition()

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Delivery) -> None:
        if self.refuses:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self.sent.append(on_delivery)

    def deliver(self, number: int, error: KafkaError | None = None) -> None:
        with self._changed:
            self._due.append((self.sent[number], error))
            self._changed.notify()

    def poll(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._due, seconds)
            due, self._due = self._due, []
        for delivery, error in due:
            delivery(error, Message())

    def flush(self, seconds: float) -> None:
        self.poll(0)


class Message:
    def topic(self) -> str:
        return "llm.tokens"


class Wire:
    """Tokens over such a client."""

    def __init__(self) -> None:
        self.tokens = KafkaTokens({}, Names(""), self._connect)

    def _connect(self, config: dict[str, Any]) -> Client:
        self.client = Client(config)
        return self.client

    def send(self, request_id: str, sequence: int = 0) -> None:
        inbound = job_of(event_of(request_id, stream=True)).inbound
        self.tokens.send(TokensGenerated(request_id=request_id, sequence=sequence, text="a"), inbound)

    def wait_for(self, request_id: str) -> threading.Event:
        told = threading.Event()
        self.tokens.when_delivered(request_id, told.set)
        return told


@pytest.fixture
def wire() -> Any:
    made = Wire()
    yield made
    made.tokens.close()


def test_nothing_waits_where_nothing_is_under_way(wire: Wire) -> None:
    assert wire.wait_for("a").is_set()


def test_what_waits_is_called_once_the_last_piece_has_arrived(wire: Wire) -> None:
    wire.send("a")
    wire.send("b")
    wire.send("a", 1)
    first, other = wire.wait_for("a"), wire.wait_for("b")
    wire.client.deliver(1)
    assert other.wait(5)
    wire.client.deliver(0)
    assert not first.wait(0.3)
    wire.client.deliver(2)
    assert first.wait(5)
    assert wire.wait_for("a").is_set()


def test_all_that_wait_for_one_request_are_called(wire: Wire) -> None:
    wire.send("a")
    told = [wire.wait_for("a"), wire.wait_for("a")]
    wire.client.deliver(0)
    assert all(one.wait(5) for one in told)


def test_a_piece_that_cannot_be_delivered_is_logged_and_holds_nothing_up(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(tokens, "_log", log)
    wire.send("a")
    told = wire.wait_for("a")
    wire.client.deliver(0, KafkaError(KafkaError._MSG_TIMED_OUT))
    assert told.wait(5)
    assert [(call.args[0], call.kwargs["error"]) for call in log.calls] == [
        ("runtime.tokens.undelivered", "_MSG_TIMED_OUT")
    ]


def test_a_piece_that_the_client_refuses_is_not_waited_for(wire: Wire) -> None:
    wire.client.refuses = True
    with pytest.raises(KafkaException):
        wire.send("a")
    assert wire.wait_for("a").is_set()
