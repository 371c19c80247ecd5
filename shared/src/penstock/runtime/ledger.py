"""Calls begun and answers not yet committed, so that a crash between the two does not pay twice.

A slow stage's call is noted in a compacted topic when it begins and its answer when it comes; once the
outcome is committed the note is deleted. All of it at once and outside any transaction, so that a dead
owner's open transaction hides no answer. Whoever owns the partition next finds the answer and publishes it
without a call. A call begun and not answered may have been paid for: it is repeated, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaError, Message, Producer

from penstock.contracts.base import Message as Contract
from penstock.contracts.events import RequestContext
from penstock.contracts.topics import MESSAGES, StateEntry
from penstock.runtime.kafka import Names, enqueue
from penstock.runtime.state import StateStore

_log = structlog.get_logger()
CLOSE_S = 10.0
BEGUN = "begun"


@dataclass(frozen=True, slots=True)
class Begun:
    """A call was made and its answer is not known."""


class Ledger:
    """The notes of one stage. One thread owns it, but for `answer`."""

    def __init__(self, config: dict[str, Any], topic: str, notes: StateStore, names: Names) -> None:
        """`topic` is the declared name of the notes' topic."""
        self._producer = Producer({**config, "linger.ms": 0})
        self._topic = topic
        self._names = names
        self._notes = notes

    def catch_up(self) -> None:
        """Read on to what the earlier owner of a partition wrote last."""
        self._notes.catch_up()

    def refresh(self) -> None:
        """Take in what others have written, without waiting."""
        self._notes.refresh()

    def find(self, key: str) -> Contract | Begun | None:
        """The answer of an earlier life; Begun where only the call is known; None where neither is."""
        text = self._notes.get(key)
        if text is None:
            return None
        schema, _, body = text.partition("\n")
        return Begun() if schema == BEGUN else MESSAGES[schema].model_validate_json(body)

    def begin(self, key: str) -> None:
        """Note a call, without waiting for the broker."""
        self._write(key, BEGUN)

    def answer(self, key: str, outcome: Contract) -> None:
        """Note an answer, without waiting for the broker; from any thread."""
        self._write(key, f"{outcome.schema_name}\n{outcome.encode().decode()}")

    def forget(self, keys: Iterable[str]) -> None:
        """The outcomes are committed: delete the notes, without waiting for the broker.

        A note that outlives a crash right here is never looked up again, and ends with the topic's retention.
        """
        for key in keys:
            self._write(key, None)

    def close(self) -> None:
        """Deliver what is queued, leave the broker."""
        self._producer.flush(CLOSE_S)
        self._notes.close()

    def _write(self, key: str, text: str | None) -> None:
        value = None if text is None else StateEntry(value=text).encode()
        enqueue(
            self._producer,
            self._names.topic(self._topic),
            value,
            key.encode(),
            headers=(),
            on_delivery=self._delivered,
        )

    @staticmethod
    def _delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:  # the outcome itself is not lost; only a crash right now would repeat the call
            _log.warning("runtime.ledger.unwritten", error=error.name())


def key_of(context: RequestContext, attempt: int) -> str:
    """One call: a request id and which attempt at it."""
    return f"{context.request_id}/{attempt}"
