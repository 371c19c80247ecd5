"""Searching text for many values at once, in every form in which one may lie in the clear."""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

_GRAM = 8
"""Forms are found by their first characters; none is shorter."""
_DIGIT_RUN = re.compile(r"(?<![\d.])\d{9,}(?!\d)")
_NO_SEPARATORS = re.compile(r"[^0-9a-z]")


class Search:
    """Looks for values; what it finds are the values, whatever form they had."""

    def __init__(self, values: Iterable[str]) -> None:
        self._forms: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._numbers: dict[str, str] = {}
        for value in values:
            for form in set(forms(value)):
                self._forms[form[:_GRAM]].append((form, value))
            if (bare := _NO_SEPARATORS.sub("", value.casefold())).isdigit():
                self._numbers[bare] = value
                self._numbers[bare.removeprefix("1")] = value

    def find(self, text: str | bytes) -> set[str]:
        """The values in a text."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        text = text.casefold()
        found = {self._numbers[run] for run in _DIGIT_RUN.findall(text) if run in self._numbers}
        grams = self._forms
        for start in range(len(text) - _GRAM + 1):
            gram = text[start : start + _GRAM]
            if gram in grams:
                found |= {value for form, value in grams[gram] if text.startswith(form, start)}
        return found


def forms(value: str) -> Iterator[str]:
    """A value as it is, without case, escaped for JSON and URLs, in base64 and hexadecimal, without separators."""
    data = value.encode()
    candidates = [
        value,
        json.dumps(value)[1:-1],
        "".join(f"\\u{ord(char):04x}" if not char.isalnum() else char for char in value),
        quote(value, safe=""),
        quote_plus(value),
        data.hex(),
        *_base64_cores(data),
    ]
    bare = _NO_SEPARATORS.sub("", value.casefold())
    if not bare.isdigit():
        candidates.append(bare)
    if "@" in value:
        candidates += value.split("@")
    for candidate in candidates:
        form = candidate.casefold()
        if len(form) >= _GRAM:
            yield form


def _base64_cores(data: bytes) -> Iterator[str]:
    """The characters that stand for `data` at each of the three ways it can lie within a longer text."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        # characters at both ends also hold bits of the neighbours
        start = (shift * 8 + 5) // 6
        end = (shift + len(data)) * 8 // 6
        core = encoded[start:end]
        yield core
        yield core.replace("+", "-").replace("/", "_")
