"""The contracts as files: JSON Schemas and the AsyncAPI document, written and compared.

    python -m penstock.contracts.export write   docs/contracts    write them anew
    python -m penstock.contracts.export check   docs/contracts    compare; 1 where something differs or breaks
    python -m penstock.contracts.export release docs/contracts    make today's schemas the baseline

`check` refuses two things: files that are not what the models say, and a schema that breaks the
`baseline/`, the schemas of the last release (see `compatibility`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.contracts import asyncapi
from penstock.contracts.asyncapi import schema_file
from penstock.contracts.base import Message
from penstock.contracts.compatibility import breaking_changes
from penstock.contracts.topics import MESSAGES

SCHEMAS = "schemas"
BASELINE = "baseline"
ASYNCAPI = "asyncapi.json"

_FILE = re.compile(r"(?P<name>penstock\.[a-z-]+)\.v(?P<version>[0-9]+)\.json")


def json_schema(message: type[Message]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a message as readers take it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{message.schema_name.replace('.', ':')}:v{message.schema_version}",
        **message.model_json_schema(mode="validation"),
    }


def files() -> dict[str, str]:
    """Relative path -> content of every generated file."""
    written = {f"{SCHEMAS}/{schema_file(message)}": _text(json_schema(message)) for message in MESSAGES.values()}
    return {**written, ASYNCAPI: _text(asyncapi.document())}


def write(folder: Path) -> list[str]:
    """Write all files and remove schemas that no model has any more; returns what changed."""
    changed = [path for path in files() if not _same(folder / path, files()[path])]
    for path in changed:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(files()[path], encoding="utf-8")
    stray = _stray(folder)
    for path in stray:
        (folder / path).unlink()
    return changed + stray


def release(folder: Path) -> list[str]:
    """Make the schemas the baseline that later ones are compared with; refused where they break the former one."""
    baseline = folder / BASELINE
    problems = _differences(folder) + (_breaks(baseline) if _recorded(baseline) else [])
    if problems:
        raise SystemExit("\n".join(f"error: {problem}" for problem in problems))
    baseline.mkdir(parents=True, exist_ok=True)
    changed = []
    for path in sorted((folder / SCHEMAS).glob("*.json")):
        content = path.read_text(encoding="utf-8")
        if not _same(baseline / path.name, content):
            (baseline / path.name).write_text(content, encoding="utf-8")
            changed.append(f"{BASELINE}/{path.name}")
    return changed


def check(folder: Path) -> list[str]:
    """A sentence for each file that differs from the models and each schema that breaks the baseline."""
    return _differences(folder) + _breaks(folder / BASELINE)


def _differences(folder: Path) -> list[str]:
    differing = [
        f"{folder / path} is not what the models say; run `python -m penstock.contracts.export write {folder}`"
        for path, content in files().items()
        if not _same(folder / path, content)
    ]
    return differing + [f"{folder / path} belongs to no message of this release" for path in _stray(folder)]


def _recorded(baseline: Path) -> list[Path]:
    return sorted(baseline.glob("*.json"))


def _breaks(baseline: Path) -> list[str]:
    recorded = _recorded(baseline)
    if not recorded:
        return [f"{baseline} holds no schemas; run `python -m penstock.contracts.export release {baseline.parent}`"]
    problems = []
    for path in recorded:
        match = _FILE.fullmatch(path.name)
        if match is None:
            problems.append(f"{path} is not named NAME.vVERSION.json")
            continue
        name, version = match["name"], int(match["version"])
        message = MESSAGES.get(name)
        if message is None or message.schema_version < version:
            problems.append(f"{name}/{version} was released and has no reader any more")
            continue
        old = json.loads(path.read_text(encoding="utf-8"))
        beside = message.schema_version <= version + message.reads_ahead
        changes = breaking_changes(old, json_schema(message), read_by_former=beside)
        problems += [f"{name}/{version}: {change}" for change in changes]
    return problems


def _stray(folder: Path) -> list[str]:
    known = {schema_file(message) for message in MESSAGES.values()}
    return [f"{SCHEMAS}/{path.name}" for path in sorted((folder / SCHEMAS).glob("*.json")) if path.name not in known]


def _same(path: Path, content: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == content


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the three commands; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m penstock.contracts.export", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("write", "check", "release"))
    parser.add_argument("folder", type=Path, help="e.g. docs/contracts")
    options = parser.parse_args(arguments)
    if options.command == "check":
        problems = check(options.folder)
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)  # noqa: T201  # a person or CI reads this
        return 1 if problems else 0
    changed = write(options.folder) if options.command == "write" else release(options.folder)
    for path in changed:
        print(path)  # noqa: T201  # the command's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
