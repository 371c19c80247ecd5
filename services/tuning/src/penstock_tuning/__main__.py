"""`python -m penstock_tuning`, `penstock tune`: the tuning commands."""

from __future__ import annotations

import typer

from penstock_tuning.abuse.cli import app as abuse
from penstock_tuning.data.cli import app as data
from penstock_tuning.encoder.cli import encoder
from penstock_tuning.evaluate.cli import evaluate
from penstock_tuning.heads.cli import heads
from penstock_tuning.lm.cli import lm, lm_evaluate, lm_fixture

app = typer.Typer(no_args_is_help=True, help="Train, evaluate and export the models shipped with Penstock.")
app.add_typer(data, name="data")
app.command("encoder")(encoder)
app.command("heads")(heads)
app.command("evaluate")(evaluate)
app.command("lm")(lm)
app.command("lm-evaluate")(lm_evaluate)
app.command("lm-fixture")(lm_fixture)
app.add_typer(abuse, name="abuse")


if __name__ == "__main__":
    app()
