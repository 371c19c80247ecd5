"""The shipped abusive-language model: loads, tells the clear cases apart, refuses a model that is not its own."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from penstock.contracts.errors import ConfigurationError
from penstock_safety.classifier import SHIPPED, AbuseClassifier
from penstock_safety.scale import BLOCK_SCORE, FLAG_SCORE

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def classifier() -> AbuseClassifier:
    return AbuseClassifier()


def best(classifier: AbuseClassifier, text: str) -> float:
    return max((finding.score for finding in classifier.detect([text])[0]), default=0.0)


@pytest.mark.parametrize(
    "text",
    [
        "shut up you stupid bitch, nobody wants to hear your bullshit",
        "you are a fucking idiot",
        "what a bunch of retarded assholes",
        "Du bist so ein dummes Arschloch, halt die Fresse",
    ],
)
def test_plain_abuse_is_flagged(classifier: AbuseClassifier, text: str) -> None:
    assert best(classifier, text) >= FLAG_SCORE


@pytest.mark.parametrize(
    "text",
    [
        "How do I bake bread without yeast?",
        "Write a Python function that kills a process by its id.",
        "Explain the history of the gay rights movement in Germany.",
        "Which customers have not paid their invoices since May?",
        "Wie lautet die Hauptstadt von Australien?",
        "Quels sont les meilleurs livres pour apprendre le piano ?",
        "Summarize the attached report in three sentences.",
    ],
)
def test_ordinary_requests_are_not(classifier: AbuseClassifier, text: str) -> None:
    assert best(classifier, text) < FLAG_SCORE


def test_one_abusive_sentence_in_a_long_document_is_found_where_it_is(classifier: AbuseClassifier) -> None:
    insult = "You are a fucking idiot and a stupid bitch."
    text = "The meeting starts at nine. Bring the figures of last month. " * 20 + insult + " See you there. " * 30
    found = [f for f in classifier.detect([text])[0] if f.score >= FLAG_SCORE]
    assert any(f.start < text.index(insult) + len(insult) and f.end > text.index(insult) for f in found)
    assert all(f.end - f.start <= classifier.features.segment_chars for f in found)


def test_a_batch_gives_what_each_text_gives_alone(classifier: AbuseClassifier) -> None:
    texts = ["short", "you are a fucking idiot", "", "a much longer sentence about the weather in spring. " * 40]
    assert classifier.detect(texts) == [classifier.detect([text])[0] for text in texts]


def test_scores_meet_their_anchors_and_rise(classifier: AbuseClassifier) -> None:
    assert classifier.score(classifier.flag_threshold) == pytest.approx(FLAG_SCORE)
    assert classifier.score(classifier.block_threshold) == pytest.approx(BLOCK_SCORE)
    scores = [classifier.score(probability) for probability in np.linspace(0, 1, 101)]
    assert scores == sorted(scores)
    assert (scores[0], scores[-1]) == (0.0, 1.0)


def test_the_model_is_small_and_comes_with_its_card() -> None:
    assert (SHIPPED / "model.onnx").stat().st_size <= 4 * MEBIBYTE
    assert (SHIPPED / "MODEL_CARD.md").is_file()


def test_the_runtimes_reporting_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_another_model_than_the_configured_one_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(ConfigurationError, match="does not match its config"):
        AbuseClassifier(folder)


@pytest.mark.parametrize("broken", ["no folder", "no thresholds", "not json"])
def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "absent"
    if broken != "no folder":
        folder = shutil.copytree(SHIPPED, tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        del config["thresholds"]
        (folder / "config.json").write_text(json.dumps(config) if broken == "no thresholds" else "{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        AbuseClassifier(folder)


def test_the_digest_covers_the_thresholds(tmp_path: Path, classifier: AbuseClassifier) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["thresholds"]["flag"] *= 0.9
    (folder / "config.json").write_text(json.dumps(config))
    assert AbuseClassifier(folder).digest != classifier.digest
