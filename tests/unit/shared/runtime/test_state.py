"""`penstock.runtime.state`: the table's own logic; how it follows a topic is tested on a real broker."""

from __future__ import annotations

import contextvars
import threading
import tracemalloc
import uuid
from typing import Any

import pytest
from confluent_kafka import KafkaError

from penstock.contracts.errors import ConfigurationError
from penstock.contracts.topics import StateEntry
from penstock.runtime import state as module
from penstock.runtime.lanes import CURRENT
from penstock.runtime.state import StateStore


class Read:
    """What the reader hands over: a record, or the end of a partition."""

    def __init__(self, partition: int, offset: int, key: str = "", value: str | bytes | None = None) -> None:
        self._place = (partition, offset)
        self._key = key
        self._value = StateEntry(value=value).encode() if isinstance(value, str) else value
        self.end = key == ""

    def error(self) -> KafkaError | None:
        return KafkaError(KafkaError._PARTITION_EOF) if self.end else None

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def key(self) -> bytes:
        return self._key.encode()

    def value(self) -> bytes | None:
        return self._value


class Reader:
    def __init__(self) -> None:
        self.ready: list[Read] = []

    def consume(self, most: int, timeout: float) -> list[Read]:
        taken, self.ready = self.ready[:most], self.ready[most:]
        return taken


class Fixture:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, max_entries: int = 3) -> None:
        self.reader = Reader()
        monkeypatch.setattr(module, "Consumer", lambda _: self.reader)
        self.store = StateStore("llm.state.vaults", {"isolation.level": "read_committed"}, max_entries)
        self.store._read_to = {0: 0, 1: 0}

    def read(self, *records: Any) -> None:
        self.reader.ready += records
        self.store.refresh()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(monkeypatch)


def test_a_batch_sees_its_own_writes_and_others_only_what_was_committed(table: Fixture) -> None:
    table.store.put("a", "1")
    assert table.store.get("a") == "1"
    assert len(table.store) == 0
    assert table.store.pending() == {"a": StateEntry(value="1")}
    table.store.commit({"a": 4})
    assert (len(table.store), table.store.pending()) == (1, {})


def test_a_batch_given_up_leaves_nothing(table: Fixture) -> None:
    table.read(Read(0, 0, "a", "old"))
    table.store.put("a", "new")
    table.store.put("b", "new")
    table.store.rollback()
    assert (table.store.get("a"), table.store.get("b")) == ("old", None)


def test_the_highest_offset_of_a_key_wins_in_whatever_order_it_is_read(table: Fixture) -> None:
    table.store.put("a", "mine")
    table.store.commit({"a": 10})
    table.read(Read(0, 9, "a", "before mine"), Read(0, 10, "a", "mine"))
    assert table.store.get("a") == "mine"
    table.read(Read(0, 11, "a", "another's"))
    assert table.store.get("a") == "another's"


def test_a_tombstone_removes(table: Fixture) -> None:
    table.read(Read(0, 0, "a", "1"), Read(0, 1, "a", None), Read(0, 2, "never", None))
    assert table.store.get("a") is None


def test_the_least_recently_used_go_first(table: Fixture) -> None:
    table.read(*(Read(0, i, key, key) for i, key in enumerate("abc")))
    table.store.get("a")
    table.read(Read(0, 3, "d", "d"))
    assert [table.store.get(key) for key in "abcd"] == ["a", None, "c", "d"]
    assert len(table.store) == 3


def test_the_end_of_a_partition_counts_as_read(table: Fixture) -> None:
    table.read(Read(0, 5, "a", "1"), Read(1, 8), Read(0, 3))
    assert table.store._read_to == {0: 6, 1: 8}


def test_what_one_lane_has_not_committed_is_not_the_others(table: Fixture) -> None:
    bulk = contextvars.copy_context()
    bulk.run(CURRENT.set, "bulk")
    table.read(Read(0, 0, "a", "old"))
    table.store.put("a", "interactive")
    bulk.run(table.store.put, "a", "bulk")
    bulk.run(table.store.put, "b", "bulk")
    assert (table.store.get("a"), bulk.run(table.store.get, "a"), table.store.get("b")) == ("interactive", "bulk", None)
    bulk.run(table.store.rollback)
    assert table.store.pending() == {"a": StateEntry(value="interactive")}
    assert bulk.run(table.store.get, "a") == "old"
    table.store.commit({"a": 7})
    assert bulk.run(table.store.get, "a") == "interactive"
    assert bulk.run(table.store.pending) == {}


def test_a_lane_that_finds_the_other_reading_does_not_wait(table: Fixture) -> None:
    table.reader.ready.append(Read(0, 0, "a", "1"))
    other = threading.Thread(target=table.store.refresh)
    with table.store._reading:
        other.start()
        other.join(30)
        assert not other.is_alive()
    assert table.store.get("a") is None


@pytest.mark.parametrize("value", [b"{", b'{"other": 1}', b"\xff"])
def test_a_foreign_record_is_refused_by_place_and_not_quoted(table: Fixture, value: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        table.read(Read(1, 7, "a", value))
    assert "partition 1, offset 7" in caught.value.message
    assert f"{len(value)} bytes" in caught.value.message


def test_an_entry_with_a_short_value_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = 20_000
    store = Fixture(monkeypatch, max_entries=entries).store
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(entries):
            store._set(str(uuid.UUID(int=number << 64)), 3_000_000 + number, f"llm.requests/3/{4_000_000 + number}")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == entries
    assert (after - before) / entries < 280


@pytest.mark.parametrize("value", ["", "llm.requests/3/17", "Grüße, 世界 🌍", "\ud800"])
def test_values_come_back_as_they_were_put(table: Fixture, value: str) -> None:
    table.store.put("k", value)
    table.store.commit({"k": -1001})  # what the client says of a record whose place it does not know
    assert table.store.get("k") == value
    assert table.store.entries() == {"k": value}
    table.read(Read(0, 5, "k", "newer"))
    assert table.store.get("k") == "newer"
    table.read(Read(0, 4, "k", "older"))
    assert table.store.get("k") == "newer"
