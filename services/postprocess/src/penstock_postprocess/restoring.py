"""Puts back what the placeholders stand for, in text and inside the strings of a JSON value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.text.placeholders import restore


def restore_value(value: Any, entities: Mapping[str, str]) -> tuple[Any, int]:
    """A JSON value with its strings and keys restored, and how many places that were.

    Inside decoded strings, so that a value with a quote or a backslash cannot break the JSON.
    """
    match value:
        case str():
            return restore(value, entities)
        case list():
            items = [restore_value(item, entities) for item in value]
            return [item for item, _ in items], sum(count for _, count in items)
        case dict():
            total = 0
            restored: dict[str, Any] = {}
            for key, item in value.items():
                new_key, keys = restore(key, entities)
                restored[new_key], items_count = restore_value(item, entities)
                total += keys + items_count
            return restored, total
        case _:
            return value, 0
