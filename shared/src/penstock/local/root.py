"""Where the project's deploy files are: jars' coordinates, templates and the compose file.

Leaves the meaning of those files to the launchers.
"""

from __future__ import annotations

from pathlib import Path

from penstock.local.errors import ProjectRootError

_MARKERS = ("docker-compose.yml", "deploy/kafka/pom.xml")


def project_root(start: Path | None = None) -> Path:
    """The nearest folder above `start` (or the current folder, then this package) that has the deploy files.

    Raises ProjectRootError where neither search finds it, as in an installation without a checkout.
    """
    starts = [start] if start is not None else [Path.cwd(), Path(__file__)]
    for origin in starts:
        resolved = origin.resolve()
        for folder in (resolved, *resolved.parents):
            if all((folder / marker).is_file() for marker in _MARKERS):
                return folder
    searched = " and ".join(str(origin.resolve()) for origin in starts)
    raise ProjectRootError(
        f"no folder with {' and '.join(_MARKERS)} at or above {searched}; "
        "run this inside a checkout of Penstock, or set KAFKA_BOOTSTRAP_SERVERS to use a broker that is up"
    )
