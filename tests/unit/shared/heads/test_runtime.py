"""A folder of heads: refused where it cannot answer, and answers that depend on the text alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.encoder import TINY_ENCODER
from tests.support.heads import FAKE_HEADS, changed

from penstock.contracts.errors import ConfigurationError
from penstock.heads.kept import MOST_PARTS, Kept
from penstock.heads.runtime import Head, Heads
from penstock.heads.spans import Span
from penstock.models.digests import sha256_of

ALL: tuple[Head, ...] = ("safety", "pii", "entailment", "similarity")
FILLER = "please tell me about the river "


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(FAKE_HEADS, needs=ALL)


def test_a_text_gets_the_same_answer_whatever_is_beside_it(heads: Heads) -> None:
    texts = ["ignore that", "", FILLER * 40 + "idiot", "tell me", "Anna Keller is in Rome"]
    together = heads.safety(texts)
    for index, text in enumerate(texts):
        np.testing.assert_array_equal(together[index], heads.safety([text])[0])
        assert heads.pii(texts)[index] == heads.pii([text])[0]
    assert together[0, heads.labels.index("injection")] > 0.9 > together[1].max()
    assert together[2, heads.labels.index("toxicity")] > 0.9


@pytest.mark.parametrize("before", [0, 1, 40, 61, 62, 63, 64, 200])
def test_names_are_found_where_they_stand_in_texts_of_any_length(heads: Heads, before: int) -> None:
    start = "😀 é " + "river " * before
    text = f"{start}Anna Keller, in Rome" + " stream" * 90
    at = len(start)
    (found,) = heads.pii([text])
    assert found == [Span(at, at + 11, "PERSON"), Span(at + 16, at + 20, "LOCATION")]
    assert all(0.9 < span.score <= 1 for span in found)


@given(text=st.text(st.characters(), max_size=400))
def test_every_text_has_an_answer_with_places_within_it(heads: Heads, text: str) -> None:
    (found,) = heads.pii([text + " Anna"])
    assert found[-1].end == len(text) + 5
    ends = [place for span in found for place in (span.start, span.end)]
    assert ends == sorted(ends) and all(span.start < span.end for span in found)
    for window in heads.screen([text])[0]:
        assert len(window.offsets) == len(window.tokens)
        assert all(0 <= start <= end <= len(text) for start, end in window.offsets)


def test_lone_surrogates_keep_the_places(heads: Heads) -> None:
    assert heads.pii(["\ud800 \udc00x Anna"])[0] == [Span(5, 9, "PERSON")]


def test_a_threshold_and_a_choice_of_labels_replace_the_folders(heads: Heads) -> None:
    text = ["Anna is in Rome"]
    assert heads.pii(text, threshold=1.0) == [[]]
    assert heads.pii(text, only=("LOCATION",)) == [[Span(11, 15, "LOCATION")]]


def test_the_windows_of_a_screened_text_say_where_their_tokens_are(heads: Heads) -> None:
    text = FILLER * 30 + "ignore it"
    (windows,) = heads.screen([text])
    column = heads.labels.index("injection")
    assert len(windows) > 2
    assert [window.probabilities[column] > 0.5 for window in windows] == [False] * (len(windows) - 1) + [True]
    (token,) = np.flatnonzero(windows[-1].tokens[:, column] > 0.5).tolist()
    start, end = windows[-1].offsets[token]
    assert text[start:end] == "ignore"
    assert heads.screen([""]) == [[]]


def test_the_digest_is_of_graph_tokenizer_and_configuration(tmp_path: Path, heads: Heads) -> None:
    other = Heads(changed(tmp_path / "other", lambda said: said["pii"]["thresholds"].update(PERSON=0.6)))
    assert other.digest != heads.digest == Heads(shutil.copytree(FAKE_HEADS, tmp_path / "same")).digest


def test_the_runtimes_reporting_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda said: said.pop(key)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("model_sha256"), "has no heads.model_sha256"),
        (lambda said: said.update(model_sha256="0" * 64), "model.onnx has another SHA-256"),
        (lambda said: said.update(version=2), "heads.version"),
        (lambda said: said.update(overlap_tokens=62), "overlap_tokens leaves windows nothing"),
        (lambda said: said.update(window_tokens=1_000), "windows are longer than the encoder reads"),
        (without("pii"), "how to use pii"),
        (lambda said: said["pii"]["thresholds"].pop("PERSON"), "how to use PERSON"),
        (lambda said: said["pii"].update(labels=["PERSON", "O"]), "the first label is not O"),
        (lambda said: said["safety"]["thresholds"]["hate"].update(flag=0.95), "flag is above block"),
        (without("safety_tokens"), "how to use safety_tokens"),
    ],
)
def test_a_folder_that_cannot_answer_is_refused_by_the_setting(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    folder = changed(tmp_path / "folder", change)
    with pytest.raises(ConfigurationError) as caught:
        Heads(folder, needs=ALL, setting="PENSTOCK_SOME_MODEL")
    assert says in caught.value.message
    assert caught.value.message.startswith(f"PENSTOCK_SOME_MODEL: the heads in {folder} ")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.onnx"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_folder_that_is_incomplete_or_damaged_is_refused(tmp_path: Path, name: str, how: str) -> None:
    folder = shutil.copytree(FAKE_HEADS, tmp_path / "folder")
    if how == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-40])
    with pytest.raises(ConfigurationError, match=name.replace(".", r"\.")):
        Heads(folder)


def test_a_graph_of_another_kind_is_refused(tmp_path: Path) -> None:
    graph = TINY_ENCODER / "model.onnx"
    folder = changed(tmp_path / "folder", lambda said: said.update(model_sha256=sha256_of(graph)))
    shutil.copy(graph, folder)
    with pytest.raises(ConfigurationError, match="lack pii: they were trained without that task"):
        Heads(folder, needs=("pii",))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "heads"}))
    with pytest.raises(ConfigurationError, match="`heads` in config"):
        Heads(folder)


def test_answers_are_kept_by_their_text_and_failures_are_not() -> None:
    asked: list[str] = []

    def answer(text: str) -> list[str]:
        asked.append(text)
        if text == "boom":
            raise ValueError
        return [text] * len(text)

    kept = Kept(answer, most=2)
    assert [list(kept(text)) for text in ("a", "b", "a", "c", "a", "b")][-1] == ["b"]
    assert asked == ["a", "b", "c", "b"], "the one used longest ago goes"
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            kept("boom")
        kept("x" * (MOST_PARTS + 1))
    assert asked.count("boom") == asked.count("x" * (MOST_PARTS + 1)) == 2
