"""docs/settings.md from the settings models: every PENSTOCK_ variable of every service.

python docs/settings_table.py write    write the page anew
python docs/settings_table.py check    compare; 1 where it is not what the code says
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penstock.runtime.settings import PREFIX, ServiceSettings

PAGE = Path(__file__).with_name("settings.md")
ROOT = PAGE.parents[1]
SERVICES = ("preprocess", "anonymize", "safety", "inference", "postprocess")
LONGEST_DEFAULT = 60

HEAD = """# Settings

Written by `python docs/settings_table.py write` from the code; `make check` compares.

A service reads its settings from environment variables, once, at start. A value that cannot work, a required
one that is missing, and a name that looks like a mistyped one end the process with exit status 2 and a
sentence for each on stderr:

    error: PENSTOCK_HTTP_PORT: input should be less than or equal to 65535 (Port of health and metrics; ...)
    error: PENSTOCK_RETRY_ATTEMPT is not a setting of this service; did you mean PENSTOCK_RETRY_ATTEMPTS?

Lists and objects are JSON. Services may be given one environment in common: what belongs to another service
is left alone. An empty variable counts as absent.
"""


def page() -> str:
    """The whole page."""
    classes = {name: importlib.import_module(f"penstock_{name}.settings").Settings for name in SERVICES}
    parts = [HEAD, "## All services\n", *_table(ServiceSettings, ServiceSettings.model_fields)]
    for name, cls in classes.items():
        own = [field for field in cls.model_fields if _is_own(cls, field)]
        parts += [f"\n## {name}\n", *_table(cls, own)]
    return "\n".join(parts) + "\n"


def _is_own(cls: type[ServiceSettings], field: str) -> bool:
    shared = ServiceSettings.model_fields.get(field)
    if shared is None:
        return True
    mine = cls.model_fields[field]
    return (mine.default, mine.description) != (shared.default, shared.description)


def _table(cls: type[ServiceSettings], fields: Iterable[str]) -> Iterator[str]:
    yield "| variable | default | takes | what it is |"
    yield "| --- | --- | --- | --- |"
    schema = cls.model_json_schema()
    for field in fields:
        info = cls.model_fields[field]
        takes = _takes(schema["properties"][field])
        cells = (f"`{PREFIX}{field.upper()}`", _default(info), takes, (info.description or "").replace("|", "\\|"))
        yield f"| {' | '.join(cells)} |"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value: Any = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ("", (), {}):
        return ""
    if isinstance(value, SecretStr):
        return "(hidden)"
    if isinstance(value, PurePath):
        return f"`{value.relative_to(ROOT) if value.is_absolute() else value}`"
    text = (
        value if isinstance(value, str) else json.dumps(value, default=lambda part: part.model_dump(exclude_none=True))
    )
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else f"{len(value)} values"


def _takes(schema: dict[str, Any]) -> str:
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    option = {**options[0]}
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    kind = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "`true`, `false`",
        "array": "JSON array",
        "object": "JSON object",
    }[option["type"]]
    if option.get("format") in ("path", "directory-path", "file-path"):
        kind = "path"
    return kind + _range(option)


def _range(option: dict[str, Any]) -> str:
    low, high = option.get("minimum"), option.get("maximum")
    if low is not None and high is not None:
        return f", {_number(low)} to {_number(high)}"
    if low is not None:
        return f", at least {_number(low)}"
    if "exclusiveMinimum" in option:
        upper = f", at most {_number(high)}" if high is not None else ""
        return f", above {_number(option['exclusiveMinimum'])}{upper}"
    return ""


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else str(value)


def main(command: str) -> int:
    """Write or check; returns the exit status."""
    if command == "write":
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if command == "check":
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"error: {PAGE} is not what the code says; run `python docs/settings_table.py write`", file=sys.stderr)  # noqa: T201  # a person or CI reads this
        return 1
    print(__doc__, file=sys.stderr)  # noqa: T201  # usage
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 else ""))
