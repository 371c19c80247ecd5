"""`penstock-inference`, or `python -m penstock_inference`."""

from __future__ import annotations

import sys

from penstock.runtime.settings import load
from penstock_inference.app import run
from penstock_inference.settings import Settings


def main() -> None:
    """Read the environment and serve."""
    sys.exit(run(load(Settings)))


if __name__ == "__main__":
    main()
