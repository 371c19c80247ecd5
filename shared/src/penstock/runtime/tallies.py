"""Amounts that several instances add up: each keeps its own part in a compacted topic, and all see the sum.

An instance writes under its own name alone, so none overwrites another's. Its part is restored at start and
written at once at each change, outside any transaction; what others have written is seen about a second later.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, Message, Producer

from penstock.contracts.topics import StateEntry
from penstock.runtime.kafka import Names, enqueue
from penstock.runtime.state import StateStore

_log = structlog.get_logger()

REFRESH_S = 1.0
CLOSE_S = 10.0
_BETWEEN = "#"
"""Between key and instance; in no instance's name."""


class Tallies:
    """One instance's view. One thread uses it; `monotonic` gives seconds."""

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        kept: StateStore,
        *,
        names: Names,
        instance: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`topic` is the declared name of the topic that `kept` reads, which is started before the first use."""
        self._producer = Producer({**config, "linger.ms": 0})
        self._topic = names.topic(topic)
        self._kept = kept
        self._instance = instance
        self._monotonic = monotonic
        self._own: dict[str, float] = {}
        self._others: dict[str, float] = {}
        self._refreshed = float("-inf")

    def own(self, key: str) -> float:
        """This instance's part, that of the process before it included."""
        if key not in self._own:
            text = self._kept.get(f"{key}{_BETWEEN}{self._instance}")
            self._own[key] = 0.0 if text is None else float(text)
        return self._own[key]

    def others(self, key: str) -> float:
        """The other instances' parts."""
        now = self._monotonic()
        if now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._kept.refresh()
            sums: defaultdict[str, float] = defaultdict(float)
            for name, text in self._kept.entries().items():
                whose, _, instance = name.rpartition(_BETWEEN)
                if instance != self._instance:
                    sums[whose] += float(text)
            self._others = sums
        return self._others.get(key, 0.0)

    def keep(self, key: str, amount: float) -> None:
        """Set this instance's part, without waiting for the broker."""
        self._own[key] = amount
        value = StateEntry(value=repr(amount)).encode()
        name = f"{key}{_BETWEEN}{self._instance}".encode()
        enqueue(self._producer, self._topic, value, name, headers=(), on_delivery=self._delivered)
        self._producer.poll(0)  # what has been delivered makes room

    def close(self) -> None:
        """Deliver what is queued."""
        self._producer.flush(CLOSE_S)

    @staticmethod
    def _delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:  # the next change writes the whole amount again
            _log.warning("runtime.tallies.unwritten", error=error.name())
