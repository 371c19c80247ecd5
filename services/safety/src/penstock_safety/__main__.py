"""`python -m penstock_safety`: the service as a process."""

from __future__ import annotations

import sys

from penstock.runtime.settings import load
from penstock_safety.app import run
from penstock_safety.settings import Settings


def main() -> None:
    """Read the settings, serve, exit."""
    sys.exit(run(load(Settings)))


if __name__ == "__main__":
    main()
