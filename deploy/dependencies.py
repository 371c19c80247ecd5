"""Print what a service and the shared library need from other projects, one requirement a line.

For the Dockerfile, which installs these in a layer of their own before it copies any source. Reads
pyproject.toml files only; the lock file says which versions are taken.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

_SHARED = re.compile(r"penstock(?:\[(?P<extras>[a-z0-9,\s-]+)\])?\s*(?:$|[<>=!~;])")


def requirements(root: Path, service: str, *extras: str) -> list[str]:
    """The requirements of `services/<service>`, of these extras of it, and of the shared library's that it names."""
    shared = _project(root / "shared" / "pyproject.toml")
    needed = list(shared["dependencies"])
    own = _project(root / "services" / service / "pyproject.toml")
    for requirement in [
        *own["dependencies"],
        *(each for extra in extras for each in own["optional-dependencies"][extra]),
    ]:
        match = _SHARED.match(requirement)
        if match is None:
            needed.append(requirement)
            continue
        for extra in (match["extras"] or "").split(","):
            if extra.strip():
                needed += shared["optional-dependencies"][extra.strip()]
    return sorted(set(needed))


def _project(path: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path.cwd(), *sys.argv[1:])) + "\n")
