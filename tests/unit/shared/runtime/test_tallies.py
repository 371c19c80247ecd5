"""Amounts of several instances, against a table in memory and a client that records."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.generation import Clock

from penstock.contracts.topics import STATE_BUDGETS, StateEntry
from penstock.runtime import tallies
from penstock.runtime.kafka import Names
from penstock.runtime.tallies import Tallies


class Table:
    """Stands in for the state store; what `wrote` comes in at the next refresh."""

    def __init__(self, **entries: str) -> None:
        self._entries = dict(entries)
        self.wrote: dict[str, str] = {}
        self.refreshed = 0

    def get(self, key: str) -> str | None:
        return self._entries.get(key)

    def entries(self) -> dict[str, str]:
        return dict(self._entries)

    def refresh(self) -> None:
        self.refreshed += 1
        self._entries.update(self.wrote)


class Client:
    """Stands in for the producer."""

    def __init__(self, _: Any) -> None:
        self.sent: list[tuple[str, str, str]] = []

    def produce(self, topic: str, value: bytes, key: bytes, **_: Any) -> None:
        self.sent.append((topic, key.decode(), StateEntry.model_validate_json(value).value))

    def poll(self, _: float) -> None:
        pass

    def flush(self, _: float) -> None:
        pass


@pytest.fixture(autouse=True)
def _client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "Producer", Client)


def _tallies(table: Table, clock: Clock | None = None) -> Tallies:
    kept: Any = table
    return Tallies({}, STATE_BUDGETS, kept, names=Names("p."), instance="1", monotonic=clock or Clock())


def test_an_instance_goes_on_with_what_the_one_before_it_kept() -> None:
    made = _tallies(Table(**{"day/total#1": "2.5"}))
    assert made.own("day/total") == 2.5
    assert made.own("day/tenant/a") == 0.0
    made.keep("day/total", 3.25)
    assert made.own("day/total") == 3.25
    client: Any = made._producer
    assert client.sent == [("p.llm.state.budgets", "day/total#1", "3.25")]


def test_others_are_summed_and_looked_for_once_a_second() -> None:
    table, clock = Table(**{"day/total#1": "2", "day/total#0": "3", "day/total#2": "4", "day/other#2": "9"}), Clock()
    made = _tallies(table, clock)
    assert made.others("day/total") == 7.0
    table.wrote = {"day/total#0": "5"}
    assert made.others("day/total") == 7.0
    clock.now += 1
    assert made.others("day/total") == 9.0
    assert made.others("none") == 0.0
    assert table.refreshed == 2
