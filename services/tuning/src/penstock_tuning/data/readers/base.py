"""What a reader yields, and the small parsers that several readers share."""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.heads.spans import Span
from penstock_tuning.data.errors import RowError

Options = Mapping[str, Any]
_MARKUP = re.compile(r"_x000D_")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source before its labels: `value` is what the manifest's label map is keyed by."""

    text: str
    pair: str | None = None
    value: str = ""
    language: str = ""
    document: str = ""
    template: str = ""
    spans: tuple[Span, ...] = ()


Reader = Callable[[Sequence[Path], Options], Iterator[Row]]


def read_text(path: Path) -> str:
    """UTF-8, or Latin-1 where it is not UTF-8; a byte-order mark and carriage returns are taken off."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def tidy(text: str) -> str:
    """Undo HTML entities and spreadsheet escapes, and strip."""
    return _MARKUP.sub(" ", html.unescape(text)).strip()


def json_lines(path: Path) -> Iterator[Any]:
    """Each line of a (gzipped) JSON-lines file."""
    for line in read_text(path).split("\n"):
        if line.strip():
            yield json.loads(line)


def table(path: Path, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Rows of a table with a header, by column."""
    return records(io.StringIO(read_text(path), newline=""), delimiter)


def records(handle: Iterable[str], delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Rows of an open table with a header; fields may be longer than the csv module's default limit."""
    csv.field_size_limit(1 << 28)
    yield from csv.DictReader(handle, delimiter=delimiter)


def joined(row: Mapping[str, Any], names: str | Sequence[str]) -> str:
    """The named fields that are not empty, each on a line of its own.

    Raises:
        RowError: the row has no such field.
    """
    wanted = [names] if isinstance(names, str) else names
    parts = []
    for name in wanted:
        value: Any = row
        for step in name.split("."):
            try:
                value = value[int(step)] if isinstance(value, list) else value[step]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise RowError(f"no field {name} in a row with {sorted(row)}") from error
        parts.append(str(value).strip() if value is not None else "")
    return "\n".join(part for part in parts if part)


def language_of(path: Path) -> str:
    """The language that a file name ends with (`text_pt.jsonl`, `tldr_pt_BR.jsonl`), or an empty string."""
    match = re.search(r"_([a-z]{2})(_[A-Z]{2})?$", path.stem)
    return match[1] if match else ""


class Joiner:
    """Puts tokens back into a text and keeps their offsets."""

    _NO_SPACE_BEFORE = frozenset(".,;:!?)]}%'\u2026\u201d\u2019\u00bb")
    _NO_SPACE_AFTER = frozenset("([{#@$\u20ac\u00a3\u201c\u2018\u00ab")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._glue = True

    def add(self, token: str) -> tuple[int, int]:
        """Append a token with a space where the language of print has one; its start and end."""
        if not self._glue and not (token[0] in self._NO_SPACE_BEFORE or token.startswith(("n't", "'"))):
            self._parts.append(" ")
            self._length += 1
        start = self._length
        self._parts.append(token)
        self._length += len(token)
        self._glue = token in self._NO_SPACE_AFTER
        return start, self._length

    @property
    def text(self) -> str:
        """All tokens so far."""
        return "".join(self._parts)
