"""`python -m penstock.cli`: the command where no script is installed."""

from __future__ import annotations

from penstock.cli.main import app

app(prog_name="penstock")
