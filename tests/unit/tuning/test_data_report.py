"""The report: noise that is put in is found, overlaps are counted, and the page and its plots are well formed."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.tuning_data import entry, write_manifest
from typer.testing import CliRunner

from penstock_tuning.__main__ import app
from penstock_tuning.data import manifest as manifests
from penstock_tuning.data.example import Example
from penstock_tuning.data.report import figures, noise, page, plots

RUN = "the same eight words in one row are here"
GOOD = ["garden", "bread", "river", "letter", "window", "teacher", "music", "holiday", "kitchen", "story"]
BAD = ["idiot", "moron", "trash", "loser", "scum", "fool", "pathetic", "clown", "vermin", "creep"]


def sentences(words: list[str], count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"{' '.join(draw.choices(words, k=4))} and {draw.choice(words)} {n}" for n in range(count)]


def example(text: str, label: int, source: str = "s", **changes: Any) -> Example:
    return Example(text=text, source=source, kind="social", language="en", labels={"toxicity": label}, **changes)


def test_wrong_labels_are_suspect_and_right_ones_are_not() -> None:
    rows = [example(text, 1, "clean") for text in sentences(BAD, 300, 1)]
    rows += [example(text, 0, "clean") for text in sentences(GOOD, 300, 2)]
    rows += [example(text, 0, "noisy") for text in sentences(BAD, 8, 3)]
    judged = noise.judge(rows, "toxicity", 1)
    assert judged is not None and judged.auc > 0.9
    found = {(cell.source, cell.value): cell.suspect / cell.rows for cell in judged.noise}
    assert found["clean", 1] < 0.02 and found["clean", 0] < 0.02
    assert found["noisy", 0] > 0.3
    assert noise.judge(rows[:310], "toxicity", 1) is None, "ten negatives are too few"
    assert noise.judge(rows, "hate", 1) is None


def test_rows_of_one_template_are_in_one_fold() -> None:
    rows = [example(f"text {n}", 0, template="one") for n in range(20)]
    assert len({noise.fold_of(row) for row in rows}) == 1
    assert len({noise.fold_of(example(f"text {n}", 0)) for n in range(40)}) == noise.FOLDS


def test_the_area_under_the_curve_counts_ties_half() -> None:
    labels = np.array([0, 0, 1, 1])
    assert noise.auc(np.array([0.1, 0.2, 0.3, 0.4]), labels) == 1.0
    assert noise.auc(np.array([0.4, 0.3, 0.2, 0.1]), labels) == 0.0
    assert noise.auc(np.array([0.5, 0.5, 0.5, 0.5]), labels) == 0.5
    assert noise.auc(np.array([0.1, 0.5, 0.5, 0.9]), labels) == 0.875


def test_bars_are_drawn_to_scale(tmp_path: Path) -> None:
    rows = [("a <b>", {"x": 30.0, "y": 10.0}), ("c", {"x": 20.0})]
    plots.bars(tmp_path / "p.svg", "A & B", rows, ("x", "y"))
    tree = ET.parse(tmp_path / "p.svg").getroot()
    drawn = [node for node in tree.iter() if node.tag.endswith("rect") and float(node.get("y", 0)) > 35]
    widths = [float(node.get("width", 0)) for node in drawn]
    assert widths == pytest.approx([widths[1] * 3, widths[1], widths[1] * 2], rel=0.01)
    assert {node.text for node in tree.iter() if node.tag.endswith("text")} >= {"A & B", "a <b>", "40", "20"}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A data folder with two sets on either side of the split, and its manifest."""
    root = tmp_path / "data"
    root.mkdir()
    train = [f"{text}\t{label}" for label, words in ((1, BAD), (0, GOOD)) for text in sentences(words, 80, label)]
    (root / "train.txt").write_text("\n".join([*train, f"{RUN} first\t0"]))
    (root / "test.txt").write_text(f"another text\t0\n{RUN} last\t1\nyes {RUN}\t1\n")
    common = {
        "options": {"delimiter": "\t", "fields": ["text", "value"]},
        "reader": "lines",
        "label_map": {"1": {"toxicity": 1}, "0": {"toxicity": 0}},
    }
    entries = {
        "one": entry(".", "train.txt", **common),
        "two": entry("./", "test.txt", split="test", language="de", **common),
    }
    return root, write_manifest(tmp_path, **entries)


def test_overlaps_say_what_crosses_the_split(small: tuple[Path, Path]) -> None:
    root, path = small
    found = figures.overlaps(manifests.load(path), root, 1)
    assert [(pair.source, pair.other, pair.share, pair.crosses) for pair in found] == [
        ("two", "one", 2 / 3, True),
    ]


def test_the_page_holds_the_figures(small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, path = small
    shipped = manifests.load(path)
    monkeypatch.setattr(manifests, "load", lambda: shipped)
    out = tmp_path / "page" / "data.md"
    done = CliRunner().invoke(app, ["data", "report", "--out", str(out), "--data", str(root)])
    assert done.exit_code == 0, done.output
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["safety_train"], last["safety_test"]) == (160, 3)
    assert last["auc_toxicity"] > 0.9
    text = out.read_text("utf-8")
    assert "| safety | test | de 3 | 1 | 3 |" in text
    assert "| safety | toxicity | 80 / 80 | 0 / 0 | 2 / 1 |" in text
    assert "| one | safety | train | ordinary | MIT | 0 | 0 | 1 | 0 | 160 |" in text
    assert "| two | one | yes | 66.7% |" in text
    for name in page.PLOTS:
        assert f"({name}.svg)" in text
        ET.parse(out.parent / f"{name}.svg")


def test_verify_ends_with_an_error_where_something_is_wrong(
    small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = small
    monkeypatch.setattr(manifests, "shipped_path", lambda: path)
    real = manifests.load
    monkeypatch.setattr(manifests, "load", lambda: real(path))
    wrong = CliRunner().invoke(app, ["data", "verify", "--data", str(root)])
    assert wrong.exit_code == 1 and "one: changed" in wrong.stdout
    assert CliRunner().invoke(app, ["data", "verify", "--write", "--data", str(root)]).exit_code == 0
    right = CliRunner().invoke(app, ["data", "verify", "--data", str(root)])
    assert json.loads(right.stdout) == {"sources": 2, "train": 1, "validation": 0, "test": 1, "wrong": 0}
    (root / "test.txt").unlink()
    gone = CliRunner().invoke(app, ["data", "verify", "--data", str(root)])
    assert gone.exit_code == 1 and "two: missing" in gone.stdout


def test_build_prints_where_the_files_are(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = small
    shipped = manifests.load(path)
    monkeypatch.setattr(manifests, "load", lambda: shipped)
    arguments = ["data", "build", "safety", "--data", str(root), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr("penstock_tuning.data.build.load", lambda: shipped)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    counts = {"safety_train": 160, "safety_validation": 0, "safety_test": 3}
    assert json.loads(done.stdout.splitlines()[-1]) == counts
    assert CliRunner().invoke(app, ["data", "build", "nothing", "--data", str(root)]).exit_code == 1
