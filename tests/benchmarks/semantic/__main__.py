"""The semantic cache on public questions: hit rate and wrong hits, by encoder and guard; the last line is JSON.

    PENSTOCK_DATA=... python -m tests.benchmarks.semantic [ENCODER ...]

ENCODER is a folder in the Hugging Face layout with model.onnx. Without one the baseline alone is measured. The
threshold is chosen on one half of the questions asked, and all figures are of the other half.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks.semantic.baseline import NGrams
from tests.benchmarks.semantic.measure import GUARDS, WHOLE, choose, fooled, nearest
from tests.benchmarks.semantic.sets import QuestionSet, load

from penstock.embeddings.background import Embeds
from penstock.embeddings.encoder import Encoder

Figures = dict[str, Any]


def measure(encoder: Embeds, sets: Sequence[QuestionSet]) -> Figures:
    """All figures of an encoder; the threshold is the same for all guards, chosen with the whole one."""
    threshold = choose([nearest(encoder, each.kept, each.chosen_by, GUARDS[WHOLE]) for each in sets])
    guards: Figures = {}
    for name, guarding in GUARDS.items():
        found = {each.name: nearest(encoder, each.kept, each.reported, guarding) for each in sets}
        guards[name] = {
            "sets": {name: vars(one.at(threshold)) for name, one in found.items()},
            "fooled": fooled(encoder, sets, threshold, guarding),
        }
    whole = {each.name: nearest(encoder, each.kept, each.reported, GUARDS[WHOLE]) for each in sets}
    steps = sorted({0.7, 0.75, 0.8, 0.85, 0.9, 0.95, round(threshold, 2)})
    curve = {f"{step:.2f}": {name: vars(one.at(step)) for name, one in whole.items()} for step in steps}
    return {"threshold": threshold, "guards": guards, "curve": curve}


def main(folders: Sequence[Path], data: Path) -> Figures:
    """Measure and print."""
    console = Console(width=150)
    sets = load(data)
    texts = [each.text for questions in sets for each in questions.kept]
    encoders: dict[str, Embeds] = {"n-grams": NGrams(texts)}
    encoders.update({folder.name: Encoder(folder) for folder in folders})
    figures: Figures = {
        "kept": {each.name: len(each.kept) for each in sets},
        "asked": {each.name: len(each.reported) for each in sets},
        "encoders": {},
    }
    for name, encoder in encoders.items():
        began = time.perf_counter()
        encoder.embed(texts[:200])
        took = (time.perf_counter() - began) / 200
        found = figures["encoders"][name] = {**measure(encoder, sets), "ms_per_text": round(took * 1e3, 3)}
        _show(console, name, found)
    print(json.dumps(figures, default=lambda value: round(float(value), 4)))
    return figures


def _show(console: Console, name: str, found: Figures) -> None:
    sets = list(found["curve"][next(iter(found["curve"]))])
    guards = Table(title=f"{name}: threshold {found['threshold']:.2f}, {found['ms_per_text']} ms a text")
    for head in ("guard", *(f"{each}: hit / wrong" for each in sets), *found["guards"]["none"]["fooled"]):
        guards.add_column(head)
    for guard, one in found["guards"].items():
        rates = [f"{each['hit']:.1%} / {each['wrong']:.1%}" for each in one["sets"].values()]
        guards.add_row(guard, *rates, *(f"{share:.1%}" for share in one["fooled"].values()))
    console.print(guards)
    curve = Table(title=f"{name}: with the whole guard")
    for head in ("threshold", *(f"{each}: hit / wrong / misled" for each in sets)):
        curve.add_column(head)
    for step, rates in found["curve"].items():
        cells = [f"{each['hit']:.1%} / {each['wrong']:.1%} / {each['misled']:.2%}" for each in rates.values()]
        curve.add_row(step, *cells)
    console.print(curve)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PENSTOCK_DATA", "../shared/data")))
    arguments = parser.parse_args()
    main(arguments.encoder, arguments.data)
