"""`penstock-anonymize`: settings from the environment, then run."""

from __future__ import annotations

import sys

from penstock.runtime.settings import load
from penstock_anonymize.app import run
from penstock_anonymize.settings import Settings


def main() -> None:
    """Run until stopped."""
    sys.exit(run(load(Settings)))


if __name__ == "__main__":
    main()
