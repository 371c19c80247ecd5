"""A stage's state without a broker."""

from __future__ import annotations


class MemoryState:
    """State in a dictionary, as long as the test lives."""

    def __init__(self) -> None:
        self.table: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        return self.table.get(key)

    def put(self, key: str, value: str) -> None:
        self.table[key] = value
