"""A folder of heads from end to end (`fake-heads`: answers follow from single words), and what the command says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from penstock.heads.spans import Span
from penstock_tuning.__main__ import app
from penstock_tuning.data.example import SAFETY, Example
from penstock_tuning.evaluate import page, tables
from penstock_tuning.evaluate.cli import _folders
from penstock_tuning.evaluate.errors import EvaluationError, ModelFolderError
from penstock_tuning.evaluate.results import LINEAR, SCRATCH, SHIPPED, Results, measure
from penstock_tuning.evaluate.speed import int8_operations, shape_of
from penstock_tuning.evaluate.systems import HeadsFolder, Rows, megabytes

FAKE = Path(__file__).parents[2] / "fixtures/fake-heads"
CLEAR = dict.fromkeys(("injection", "jailbreak", "harmful", "toxicity", "hate", "sexual", "self_harm"), 0)


def row(text: str, source: str, **changes: Any) -> Example:
    return Example(**{"text": text, "source": source, "kind": "k", "language": "en", **changes})


def rows() -> Rows:
    safety = [row("please tell me about the garden", "plain", labels=CLEAR, kind="writing") for _ in range(98)]
    safety += [row("tell me about the idiot", "plain", labels=CLEAR, kind="chat") for _ in range(2)]
    safety += [row("please ignore the letter", "typed", labels={"injection": 1}) for _ in range(60)]
    safety += [row("the garden is about me", "typed", labels={"injection": 1}) for _ in range(20)]
    safety += [row("pretend", "played", labels={"jailbreak": 1}) for _ in range(50)]
    safety += [row("vermin", "tweets", labels={"hate": 1}) for _ in range(50)]
    safety += [row("the poison", "asked", labels={"harmful": 1}) for _ in range(50)]
    spans = (Span(8, 19, "PERSON"), Span(23, 27, "LOCATION"))
    names = [row("tell me Anna Keller in Rome", "forms", spans=spans, covers=("PERSON", "LOCATION"))] * 3
    names += [row("tell me Anna in Paris", "forms", spans=(Span(8, 21, "PERSON"),), covers=("PERSON",))]
    similar = [row("river", "pairs", pair="stream", labels={"similar": 1})] * 4
    similar += [row("letter", "pairs", pair="garden", labels={"similar": 0})] * 4
    entailed = [row("indeed", "talks", pair="the river", labels={"entailed": 1})] * 3
    entailed += [row("the river", "talks", pair="the river", labels={"entailed": 1})]
    entailed += [row("car", "talks", pair="the river", labels={"entailed": 0})] * 4
    return Rows(safety, names, similar, entailed)


def stricter(folder: Path) -> Path:
    """The same heads with thresholds that nothing reaches."""
    shutil.copytree(FAKE, folder)
    config = json.loads((folder / "config.json").read_text())
    for own in config["heads"]["safety"]["thresholds"].values():
        own["flag"] = own["block"] = 1.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_is_measured_and_compared(tmp_path: Path) -> None:
    systems = {SHIPPED: HeadsFolder(FAKE), SCRATCH: HeadsFolder(stricter(tmp_path / "other"))}
    own = rows()
    figures = measure(systems, own, 60, 1, lambda _: None)
    found = {(one.metric, one.group): one for one in figures}

    def value(metric: str, group: str = "mean", system: str = SHIPPED) -> float:
        return found[metric, group].values[system].value

    assert value("injection_recall", "typed") == pytest.approx(0.75)
    assert value("injection_recall") == pytest.approx((0.75 + 1) / 2)
    assert value("injection_recall", system=SCRATCH) == 0
    assert found["injection_recall", "mean"].gains[SCRATCH].low > 0.7
    assert value("injection_recall_at_1fpr") == value("injection_recall_at_1fpr", system=SCRATCH)
    assert value("ordinary_flagged") == pytest.approx(0.02)
    assert value("ordinary_flagged", "chat") == 1 and value("ordinary_flagged", "writing") == 0
    assert value("toxicity_auc") > 0.97 and value("harmful_auc") == 1
    assert value("pii_location_f1") == 1
    assert value("pii_name_f1") == pytest.approx(3 / 4), "three names exact, one with other bounds"
    assert value("embedding_spearman") == pytest.approx(1)
    assert value("entailment_balanced_accuracy") == pytest.approx((0.75 + 1) / 2)

    results = Results(figures, list(systems), {"safety": len(own.safety)}, {"figures": 1.0}, {SHIPPED: megabytes(FAKE)})
    page.write(results, tmp_path / "models.md", {"processor": "p", "cores": 1, "python": "3"})
    text = (tmp_path / "models.md").read_text()
    assert "| attacks found at the default threshold | 130 | 87.5%" in text
    assert "+87.5 (" in text and "nan" not in text
    line = json.loads(results.line())
    assert line["ordinary_flagged"] == 0.02 and line["ordinary_flagged_scratch"] == 0
    assert next(tables.sheets(results)).title == "All tasks"


def test_the_heads_say_probabilities_spans_and_cosines_in_order() -> None:
    heads = HeadsFolder(FAKE)
    said = heads.safety(["please", "pretend and ignore"])
    assert said.shape == (2, len(SAFETY))
    assert said[1, SAFETY.index("jailbreak")] > 0.9 > said[0].max()
    assert heads.names(["in Rome", "in the garden"]) == [[Span(3, 7, "LOCATION")], []]
    np.testing.assert_allclose(heads.similarity(["river", "river"], ["stream", "river"]), [1, 1], atol=1e-5)
    assert heads.flag["entailed"] == 0.5 and set(SAFETY) <= set(heads.flag)


def test_what_is_no_finished_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"model\.onnx"):
        HeadsFolder(tmp_path)
    shutil.copytree(FAKE, tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder/config.json").read_text())
    del config["heads"]
    (tmp_path / "encoder/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="`heads` in config"):
        HeadsFolder(tmp_path / "encoder")


def test_the_network_is_read_from_the_configuration(tmp_path: Path) -> None:
    shape = shape_of(FAKE)
    assert (shape.width, shape.layers, shape.feed_forward) == (8, 1, 8)
    assert int8_operations(shape) == 8 * 128 * (4 * 64 + 3 * 64)
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(ModelFolderError, match="vocab_size"):
        shape_of(tmp_path)


def test_folders_have_names_of_their_own(tmp_path: Path) -> None:
    found = _folders(FAKE, tmp_path, ["augmentation=a", "breadth=b"])
    assert list(found) == [SHIPPED, SCRATCH, "augmentation", "breadth"]
    for wrong in ("augmentation", "=a", "a=", f"{LINEAR}=a", "a=1"):
        with pytest.raises(EvaluationError, match="NAME=FOLDER"):
            _folders(FAKE, None, ["a=0", wrong])


def test_a_missing_data_folder_is_said_plainly(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "set PENSTOCK_DATA" in done.output and "Traceback" not in done.output
    done = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path), "--model", str(tmp_path / "nothing")])
    assert done.exit_code == 1 and "Traceback" not in done.output
