"""Readers for plain formats, steered by the manifest's options.

Options: `text` and `pair` (a field, or several to be joined by a line break; dots go into nested values), `value` (the
field that the label map is keyed by), `document`, `template` and `language` (fields), `only` (field: the values kept).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock_tuning.data.readers.base import Options, Row, joined, json_lines, language_of, read_text, table, tidy


def _rows(rows: Iterable[Mapping[str, Any]], path: Path, options: Options) -> Iterator[Row]:
    only: Mapping[str, Sequence[str]] = options.get("only", {})
    for index, row in enumerate(rows):
        if any(str(row.get(name)) not in values for name, values in only.items()):
            continue
        yield Row(
            text=tidy(joined(row, options["text"])),
            pair=tidy(joined(row, options["pair"])) if "pair" in options else None,
            value=joined(row, options["value"]) if "value" in options else path.stem,
            language=joined(row, options["language"]) if "language" in options else language_of(path),
            document=joined(row, options["document"]) if "document" in options else f"{path.stem}:{index}",
            template=joined(row, options["template"]) if "template" in options else "",
        )


def csv_rows(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """A table with a header; option `delimiter`."""
    for path in paths:
        yield from _rows(table(path, options.get("delimiter", ",")), path, options)


def jsonl(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """One object a line, or one string a line (then without the option `text`)."""
    for path in paths:
        rows = ({"text": row} if isinstance(row, str) else row for row in json_lines(path))
        yield from _rows(rows, path, {"text": "text", **options})


def json_rows(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """A JSON list of objects, or the values of an object; option `at` names the field that holds them."""
    for path in paths:
        found = json.loads(read_text(path))
        found = found[options["at"]] if "at" in options else found
        yield from _rows(found.values() if isinstance(found, dict) else found, path, options)


def strings(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Every string of a JSON file at any depth; its value is the key path, joined by dots.

    Options: `at` (begin there), `skip` (keys left out), `value_depth` (this many keys of the path).
    """
    skip = frozenset(options.get("skip", ()))
    depth = options.get("value_depth")

    def walk(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
        if isinstance(node, str):
            yield keys, node
        elif isinstance(node, list):
            for child in node:
                yield from walk(child, keys)
        elif isinstance(node, dict):
            for key, child in node.items():
                if key not in skip:
                    yield from walk(child, (*keys, key))

    for path in paths:
        root = json.loads(read_text(path))
        root = root[options["at"]] if "at" in options else root
        for index, (keys, text) in enumerate(walk(root, ())):
            yield Row(
                tidy(text),
                value=".".join(keys[:depth]) if keys else path.stem,
                document=f"{path.stem}:{index}",
                template=path.stem if options.get("template") == "file" else "",
            )


def lines(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """A text a line; `delimiter` and `fields` (names of the columns) for tables without a header."""
    names: Sequence[str] = options.get("fields", ("text",))
    for path in paths:
        for index, line in enumerate(read_text(path).split("\n")):
            if not line.strip():
                continue
            columns = line.split(options["delimiter"]) if "delimiter" in options else [line]
            if len(columns) < len(names):
                continue
            row = dict(zip(names, columns, strict=False))
            text = tidy(row["text"].replace("\\n", "\n"))
            yield Row(
                text,
                pair=tidy(row["pair"]) if "pair" in row else None,
                value=row.get("value", path.stem).strip(),
                language=language_of(path),
                document=f"{path.stem}:{index}",
            )


def whole(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Each file is one text; option `after` keeps what follows the first line that says so."""
    for path in paths:
        text = read_text(path)
        if "after" in options:
            text = text.partition(options["after"])[2]
        yield Row(text.strip(), value=path.stem, document=path.stem)
