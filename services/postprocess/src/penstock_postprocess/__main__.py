"""`penstock-postprocess`, or `python -m penstock_postprocess`."""

from __future__ import annotations

import sys

from penstock.runtime.settings import load
from penstock_postprocess.app import run
from penstock_postprocess.settings import Settings


def main() -> None:
    """Read the environment and serve."""
    sys.exit(run(load(Settings)))


if __name__ == "__main__":
    main()
