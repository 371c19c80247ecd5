"""Keyed state in a compacted topic: restored at start, followed while others write, part of the transaction.

Every instance holds the whole table (bounded, least recently used first out), so a partition can move
to any of them. It does not order two instances that write the same key at the same moment. The lanes of a
process share the table; what each has written and not yet committed is its own (`lanes.CURRENT` says whose).
"""

from __future__ import annotations

import struct
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from penstock.contracts.errors import BackendTimeout, ConfigurationError, LimitExceeded
from penstock.contracts.events import Priority
from penstock.contracts.topics import StateEntry, load_topics
from penstock.runtime.access import NOT_AUTHORIZED
from penstock.runtime.kafka import RECORD_OVERHEAD_BYTES
from penstock.runtime.lanes import CURRENT

_log = structlog.get_logger()

RESTORE_TIMEOUT_S = 120.0
RETRY_S = 0.5
DEFAULT_LIMIT_BYTES = 1_048_576
LONGEST_ESCAPE = 6
"""Bytes that JSON needs for one character, at most."""
_OFFSET: Final = struct.Struct("<q")


class StateStore:
    """One state topic's table. `get` and `put` are the stage's side; the rest is the worker's."""

    def __init__(
        self,
        topic: str,
        reader_config: dict[str, Any],
        max_entries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topic = topic
        self._reader = Consumer(reader_config)
        self._max_entries = max_entries
        self._clock = clock
        declared = [one.max_message_bytes for one in load_topics() if topic.endswith(one.name)]
        self._limit = min(declared, default=DEFAULT_LIMIT_BYTES) - RECORD_OVERHEAD_BYTES
        self._table: OrderedDict[str, bytes] = OrderedDict()
        """key -> offset and value, as `_packed`; a key always lives in one partition, so offsets order its values."""
        self._pending: defaultdict[Priority, dict[str, str]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._reading = threading.RLock()
        self._read_to: dict[int, int] = {}

    def get(self, key: str) -> str | None:
        """The newest value, this batch's own writes included."""
        own = self._pending[CURRENT.get()].get(key)
        if own is not None:
            return own
        with self._lock:
            entry = self._table.get(key)
            if entry is None:
                return None
            self._table.move_to_end(key)
        return _value(entry)

    def put(self, key: str, value: str) -> None:
        """Set a value in this batch's transaction; raises LimitExceeded where the topic would not take it."""
        if len(value) * LONGEST_ESCAPE > self._limit and len(StateEntry(value=value).encode()) > self._limit:
            raise LimitExceeded(
                f"the state of one key would be more than the {self._limit} bytes that {self.topic} takes; "
                "start a new conversation",
                field="state",
                limit=self._limit,
            )
        self._pending[CURRENT.get()][key] = value

    def entries(self) -> dict[str, str]:
        """All keys and their newest committed values."""
        with self._lock:
            return {key: _value(entry) for key, entry in self._table.items()}

    def __len__(self) -> int:
        return len(self._table)

    def start(self) -> None:
        """Take all partitions and read them to their end."""
        metadata = self._reader.list_topics(self.topic, timeout=20).topics[self.topic]
        if metadata.error is not None and metadata.error.code() in NOT_AUTHORIZED:
            raise KafkaException(metadata.error)
        if metadata.error is not None or not metadata.partitions:
            raise ConfigurationError(f"topic {self.topic} does not exist; create it with `penstock topics apply`")
        self._read_to = dict.fromkeys(metadata.partitions, 0)
        self._reader.assign([TopicPartition(self.topic, number, 0) for number in metadata.partitions])
        self.catch_up()

    def catch_up(self) -> None:
        """Read on until everything committed by now is in the table; raises BackendTimeout."""
        with self._reading:
            self._catch_up()

    def _catch_up(self) -> None:
        until = self._clock() + RESTORE_TIMEOUT_S
        ends = self._ends(until)
        while any(self._read_to[number] < end for number, end in ends.items()):
            if self._clock() > until:
                raise BackendTimeout(f"state topic {self.topic} could not be read within {RESTORE_TIMEOUT_S:.0f} s")
            self._take(self._reader.consume(10_000, timeout=0.1))

    def _ends(self, until: float) -> dict[int, int]:
        """Where the records to be read end in each partition; a broker that has just come back is asked again.

        The reader is asked, whose isolation counts, and no admin client, which ends the process where the broker
        goes away while it waits.
        """
        ends = [TopicPartition(self.topic, number, OFFSET_END) for number in self._read_to]
        while True:
            try:
                found = self._reader.offsets_for_times(ends, timeout=20)
                if (error := next((part.error for part in found if part.error is not None), None)) is not None:
                    raise KafkaException(error)
            except KafkaException as refused:
                # e.g. FENCED_LEADER_EPOCH, which is not marked retriable: the leader known is from before its restart
                cause = refused.args[0]
                if cause.fatal() or cause.code() in NOT_AUTHORIZED or self._clock() > until:
                    raise
                _log.warning("runtime.state.retry", topic=self.topic, error=cause.name())
                time.sleep(RETRY_S)
                with suppress(KafkaException):  # asks for fresh metadata; the next turn says what is still wrong
                    self._reader.list_topics(self.topic, timeout=5)
            else:
                return {part.partition: part.offset for part in found}

    def refresh(self) -> None:
        """Take in what others have written, without waiting: the other lane may be at it already."""
        if self._reading.acquire(blocking=False):
            try:
                self._take(self._reader.consume(10_000, timeout=0))
            finally:
                self._reading.release()

    def pending(self) -> dict[str, StateEntry]:
        """This batch's writes, to be produced in its transaction."""
        return {key: StateEntry(value=value) for key, value in self._pending[CURRENT.get()].items()}

    def commit(self, offsets: dict[str, int]) -> None:
        """The transaction is through; `offsets` says where each key was written."""
        own = self._pending[CURRENT.get()]
        for key, value in own.items():
            self._set(key, offsets.get(key, 0), value)
        own.clear()

    def rollback(self) -> None:
        """The batch is given up: so are its writes."""
        self._pending[CURRENT.get()].clear()

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                self._apply(message)
                self._read_to[message.partition()] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # past transaction markers, which carry offsets and no message
                self._read_to[message.partition()] = max(self._read_to[message.partition()], message.offset())
            elif error.fatal() or error.code() in NOT_AUTHORIZED:
                raise KafkaException(error)

    def _apply(self, message: Message) -> None:
        key = (message.key() or b"").decode("utf-8", "replace")
        value = message.value()
        if value is None:
            with self._lock:
                self._table.pop(key, None)
            return
        try:
            entry = StateEntry.model_validate_json(value)
        except ValidationError:
            raise ConfigurationError(
                f"topic {self.topic} holds a record that is no state entry (partition {message.partition()}, "
                f"offset {message.offset()}, {len(value)} bytes): another program writes to it"
            ) from None
        self._set(key, message.offset(), entry.value)

    def _set(self, key: str, offset: int, value: str) -> None:
        with self._lock:
            known = self._table.get(key)
            if known is not None and _OFFSET.unpack_from(known)[0] > offset:
                return
            self._table[key] = _packed(offset, value)
            self._table.move_to_end(key)
            while len(self._table) > self._max_entries:
                self._table.popitem(last=False)


# one object for each entry in place of three: a third less memory where the values are small, and there may be a
# million of them
def _packed(offset: int, value: str) -> bytes:
    return _OFFSET.pack(offset) + value.encode("utf-8", "surrogatepass")


def _value(entry: bytes) -> str:
    return entry[_OFFSET.size :].decode("utf-8", "surrogatepass")
