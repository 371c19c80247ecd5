"""Following `llm.control`: every process reads the whole topic at start and goes on in a thread of its own.

A record that is no command this release reads is logged and passed over: the control topic must not be
able to stop a service. Where the broker does not answer, what is known stays in force.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from penstock.contracts import headers as names_of
from penstock.contracts.control import Cancel
from penstock.contracts.errors import BackendTimeout, ConfigurationError, UnsupportedSchema
from penstock.contracts.topics import CONTROL, load_topics
from penstock.runtime import kafka
from penstock.runtime.cancellations import Cancellations

_log = structlog.get_logger()

RESTORE_TIMEOUT_S = 60.0
POLL_S = 0.1
RETRY_S = 2.0

MAX_AGE_MS = next(topic.retention_hours for topic in load_topics() if topic.name == CONTROL) * 3_600_000
"""How long a command is in force: as long as its topic keeps it."""


class ControlReader:
    """Keeps `cancellations` as the topic says."""

    def __init__(self, topic: str, reader_config: dict[str, Any], *, max_entries: int) -> None:
        """`topic` is the name on the broker."""
        self.cancellations = Cancellations(max_entries=max_entries, max_age_ms=MAX_AGE_MS)
        self.changed: Callable[[int], None] = lambda _: None
        """Told how many commands are in force."""
        self._topic = topic
        self._config = reader_config
        self._reader: Consumer | None = None
        self._read_to: dict[int, int] = {}
        self._behind: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="control", daemon=True)

    def start(self) -> None:
        """Read the topic to its end, then follow it. Raises KafkaException, BackendTimeout or ConfigurationError."""
        if self._thread.is_alive():
            return
        self._open()
        until = time.monotonic() + RESTORE_TIMEOUT_S
        while self._behind:
            if time.monotonic() > until:
                raise BackendTimeout(f"control topic {self._topic} could not be read within {RESTORE_TIMEOUT_S:.0f} s")
            self._take()
        _log.info("runtime.control.restored", cancellations=len(self.cancellations))
        self._thread.start()

    def close(self) -> None:
        """End the thread and leave the broker."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._reader is not None:
            self._reader.close()

    def _open(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = reader = Consumer(self._config)
        described = reader.list_topics(self._topic, timeout=20).topics[self._topic]
        if described.error is not None or not described.partitions:
            raise ConfigurationError(f"topic {self._topic} does not exist; create it with `penstock topics apply`")
        self._behind = set(described.partitions)
        reader.assign([TopicPartition(self._topic, n, self._read_to.get(n, 0)) for n in described.partitions])

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._take()
            except KafkaException as error:
                _log.warning("runtime.control.failed", error=error.args[0].name())
                self._stopping.wait(RETRY_S)
                self._reopen()

    def _reopen(self) -> None:
        try:
            self._open()
        except (KafkaException, ConfigurationError) as error:
            _log.warning("runtime.control.unreachable", error_type=type(error).__name__)

    def _take(self) -> None:
        assert self._reader is not None
        for message in self._reader.consume(1_000, timeout=POLL_S):
            error = message.error()
            if error is None:
                self._apply(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._behind.discard(message.partition())
            elif error.fatal():
                raise KafkaException(error)
        self.cancellations.expire()
        self.changed(len(self.cancellations))

    def _apply(self, message: Message) -> None:
        self._read_to[message.partition()] = message.offset() + 1
        key = (message.key() or b"").decode("utf-8", "replace")
        value = message.value()
        if value is None:
            self.cancellations.withdraw(key)
            _log.info("runtime.control.withdrawn", scope=key.partition("/")[0])
            return
        try:
            _accept(message)
            command = Cancel.model_validate_json(value)
        except (ValidationError, UnsupportedSchema) as error:
            _log.warning(
                "runtime.control.refused",
                error_type=type(error).__name__,
                partition=message.partition(),
                offset=message.offset(),
                bytes=len(value),
            )
            return
        self.cancellations.put(command)
        _log.info("runtime.control.cancel", scope=command.scope)


def _accept(message: Message) -> None:
    for name, value in kafka.headers_of(message) or ():
        if name == names_of.SCHEMA and value is not None:
            Cancel.accepts(value.decode("utf-8", "replace"))
