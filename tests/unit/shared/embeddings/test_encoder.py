"""Embeddings of texts: pooled as by hand, the same whatever shares the batch, refused where a folder is none."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.support.encoder import TINY_ENCODER
from tokenizers import Tokenizer

from penstock.contracts.errors import ConfigurationError
from penstock.embeddings.background import Background
from penstock.embeddings.batches import STEP, batches
from penstock.embeddings.encoder import Embeddings, Encoder, pool

TEXTS = ["what is a river", "how do I reset my password", "", "refund", "the " * 17, "what is a stream"]


def by_hand(text: str) -> list[float]:
    """A text's embedding, token by token, without padding."""
    ids = Tokenizer.from_file(str(TINY_ENCODER / "tokenizer.json")).encode(text).ids
    session = onnxruntime.InferenceSession(str(TINY_ENCODER / "model.onnx"), providers=["CPUExecutionProvider"])
    feeds = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [[0] * len(ids)]}
    ((vectors,),) = session.run(None, {name: np.array(value, np.int64) for name, value in feeds.items()})
    mean = [sum(float(vector[place]) for vector in vectors) / len(vectors) for place in range(len(vectors[0]))]
    length = sum(value * value for value in mean) ** 0.5
    return [value / length for value in mean] if length else mean


def test_an_embedding_is_the_mean_of_the_tokens_at_unit_length() -> None:
    found = Encoder(TINY_ENCODER).embed(TEXTS)
    assert found.shape == (len(TEXTS), 16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [by_hand(text) for text in TEXTS], atol=1e-6)


@pytest.mark.parametrize("batch_tokens", [1, STEP, 3 * STEP, 4_096])
def test_a_batch_changes_no_embedding(batch_tokens: int) -> None:
    encoder = Encoder(TINY_ENCODER, batch_tokens=batch_tokens)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.embed(TEXTS), alone, atol=1e-6)
    assert encoder.embed([]).shape == (0, 16)


def test_padding_is_no_part_of_the_mean() -> None:
    vectors = np.array([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]], [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]], np.float16)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(pool(vectors, mask), [[0.6, 0.8], [0.0, 0.0]], atol=1e-3)


def test_what_means_the_same_is_near() -> None:
    river, reset, _, _, _, stream = Encoder(TINY_ENCODER).embed(TEXTS)
    assert river @ stream > 0.999
    assert river @ reset < 0.9


def test_a_special_token_that_stands_in_a_text_is_read_as_characters(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY_ENCODER, tmp_path / "encoder")
    file = folder / "tokenizer.json"
    declared = json.loads(file.read_text())
    # a token that no spelling of other characters comes to, with a vector that shows in the mean
    declared["model"]["vocab"]["[refund]"] = declared["model"]["vocab"].pop("refund")
    file.write_text(json.dumps(declared))
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(["[refund]"])
    tokenizer.save(str(file))
    special, unknown = Encoder(folder).embed(["a river [refund]", "a river [unknown]"])
    np.testing.assert_allclose(special, unknown, atol=1e-6)


def test_a_text_beyond_the_limit_is_cut_or_says_nothing() -> None:
    long, cut = "river " * 100, "river " * 22
    encoder = Encoder(TINY_ENCODER)
    np.testing.assert_allclose(*encoder.embed([long, cut]), atol=1e-6)
    nothing, whole = Encoder(TINY_ENCODER, truncates=False).embed([long, cut])
    assert not nothing.any()
    np.testing.assert_allclose(whole, encoder.embed([cut])[0], atol=1e-6)


def test_the_digest_is_of_the_files_that_make_the_vectors(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(TINY_ENCODER, folder)
    (folder / "README.md").write_text("about it")
    digest = Encoder(TINY_ENCODER).digest
    assert Encoder(folder).digest == digest
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 1}))
    assert Encoder(folder).digest != digest


def _config(folder: Path, **other: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **other}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: _config(folder, max_position_embeddings=None), "max_position_embeddings"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"no graph"), "model.onnx"),
        (lambda folder: [shutil.copy(path, folder) for path in TINY_LM.glob("model.onnx*")], "no encoder"),
    ],
)
def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path, spoil: Any, says: str) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(TINY_ENCODER, folder)
    spoil(folder)
    with pytest.raises(ConfigurationError, match=says):
        Encoder(folder)


TINY_LM = TINY_ENCODER.parent / "tiny-lm"


@pytest.mark.parametrize("most_tokens", [1, 32, 64, 1_000])
def test_batches_hold_texts_of_one_width_and_no_more_tokens_than_may_be(most_tokens: int) -> None:
    lengths = [3, 40, 16, 17, 1, 0, 33, 5, 16, 90]
    made = list(batches(lengths, most_tokens))
    assert sorted(index for indices, _ in made for index in indices) == list(range(len(lengths)))
    for indices, width in made:
        assert width % STEP == 0
        assert {max(STEP, -(-lengths[index] // STEP) * STEP) for index in indices} == {width}
        assert len(indices) == 1 or len(indices) * width <= most_tokens


class Held:
    """An encoder that waits, and counts."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.batches: list[list[str]] = []

    def embed(self, texts: Any) -> Embeddings:
        assert self.may.wait(60)
        self.batches.append(list(texts))
        if "fails" in texts:
            raise RuntimeError("of these texts")
        return np.array([[float(len(text))] for text in texts], np.float32)


def test_what_waits_is_embedded_together_in_another_thread() -> None:
    held = Held()
    background = Background(held)
    came: dict[str, tuple[Any, str]] = {}
    done = threading.Event()

    def note(text: str, vector: Any) -> None:
        came[text] = (vector, threading.current_thread().name)
        if len(came) == 4:
            done.set()

    for text in ("a", "bb", "ccc", "dddd"):
        background.submit(text, lambda vector, text=text: note(text, vector))
    held.may.set()
    assert done.wait(60)
    background.close()
    background.close()
    assert {text: float(vector[0]) for text, (vector, _) in came.items()} == {"a": 1, "bb": 2, "ccc": 3, "dddd": 4}
    assert {name for _, name in came.values()} == {"embed"}
    assert len(held.batches) <= 2


def test_a_failure_is_told_as_none_and_the_thread_goes_on() -> None:
    held = Held()
    held.may.set()
    background = Background(held)
    came: list[Any] = []
    for text in ("fails", "fine"):
        there = threading.Event()
        background.submit(text, lambda vector, there=there: (came.append(vector), there.set()))
        assert there.wait(60)
    background.close()
    assert came[0] is None
    assert came[1] is not None
