"""From built examples to token streams; the pace and the record of a run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from penstock_tuning.__main__ import app
from penstock_tuning.data.build import Built
from penstock_tuning.data.example import Example, write_examples
from penstock_tuning.data.manifest import load
from penstock_tuning.encoder.card import model_card
from penstock_tuning.encoder.config import load_config
from penstock_tuning.encoder.prepare import encode, sample, whole_rows
from penstock_tuning.encoder.record import run_record
from penstock_tuning.encoder.tokenizer import SPECIAL, train_tokenizer
from penstock_tuning.training.attribution import notice, origins, sources_read
from penstock_tuning.training.hardware import hardware
from penstock_tuning.training.progress import Pace

START, END = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """Ten long texts of one source, two short ones of another."""
    examples = [Example(f"number {n} " * 20, "long", "prose", "en") for n in range(10)]
    examples += [Example(f"Nummer {n}", "short", "prose", "de") for n in range(2)]
    path = tmp_path / "train.jsonl"
    return Built(path, {"examples": write_examples(examples, path)})


def test_the_stream_frames_every_text_and_counts_its_tokens(built: Built) -> None:
    tokenizer = train_tokenizer((example.text for example in built), 300)
    counts: Counter[str] = Counter()
    stream = encode(tokenizer, built, counts)
    assert stream.dtype == np.uint16
    assert (stream == START).sum() == (stream == END).sum() == 12
    assert (stream[0], stream[-1]) == (START, END)
    assert counts.total() == len(stream)
    assert set(counts) == {"en long", "de short"}
    inner = stream[1 : np.flatnonzero(stream == END)[0]]
    assert tokenizer.decode(inner.tolist()) == next(iter(built)).text


def test_small_sources_are_whole_in_the_tokenizers_sample(built: Built) -> None:
    texts = list(sample(built, 600))
    assert sum(text.startswith("Nummer") for text in texts) == 2
    assert sum(text.startswith("number") for text in texts) == 2 or sum(map(len, texts)) <= 600
    assert len(texts) < len(list(built))
    assert len(list(sample(built, 10**6))) == 12


def test_whole_rows_are_the_beginnings_of_long_texts() -> None:
    stream = np.array([2, 9, 3, 2, 7, 7, 7, 3, 2, 8, 8, 3], np.uint16)
    np.testing.assert_array_equal(whole_rows(stream, 4, 5), [[2, 7, 7, 7], [2, 8, 8, 3]])
    assert len(whole_rows(stream, 4, 1)) == 1
    assert whole_rows(stream, 6, 5).shape == (0, 6)


def test_the_pace_is_of_what_this_piece_did() -> None:
    now = [100.0]
    pace = Pace(5000, 10_000, clock=lambda: now[0])
    now[0] = 110.0
    assert pace.report(6000) == {"tokens_per_second": 100, "seconds_left": 40, "done_percent": 60.0}
    now[0] = 115.0
    assert pace.report(7500) == {"tokens_per_second": 167, "seconds_left": 15, "done_percent": 75.0}


def test_the_record_and_the_card_say_what_was_done() -> None:
    config = load_config("cpu")
    part = {"texts": 3, "tokens": 1234, "characters": 5000, "by": {"en wiki": 1234}}
    record = run_record(
        config,
        {"key": {"data": "abc"}, "sources": {"wiki": "sha"}, "train": part, "validation": part},
        seconds={"preparation": 60.04, "pretraining": 3000.0, "export": 5.0},
        history=[{"step": 1, "loss": 9.7}],
        metrics={"fp32_loss": 3.1, "int8_loss": 3.2, "mean_cosine": 0.99, "low_cosine": 0.97, "int8_megabytes": 9.1},
        machine=hardware() | {"device": "cpu", "precision": "bf16", "threads": 2},
    )
    assert json.loads(json.dumps(record)) == record
    assert record["tokens_per_second"] == round(config.tokens / 3000)
    assert record["configuration_digest"] == config.digest()
    assert record["seconds"]["preparation"] == 60.0
    assert record["hardware"]["cores"] >= 1
    manifest = load()
    read = sources_read(manifest)
    card = model_card(record, origins(read))
    for said in ("9.1 MB", "3.1 in fp32", "3.2 in int8", "1,234 tokens", "50 minutes", "`last_hidden_state`"):
        assert said in card
    attribution = notice(read, "penstock-encoder")
    trained = {source.origin for source in manifest.of("text", "train")}
    held_out = {source.origin for source in manifest.of("text") if source.split != "train"} - trained
    assert all(f"| {origin} |" in attribution for origin in trained)
    assert not any(f"| {origin} |" in attribution for origin in held_out)


def test_the_command_says_what_is_not_installed_or_what_is_wrong(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["encoder", "--preset", "tpu", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "install penstock-tuning[train]" in result.output or "no preset 'tpu'" in result.output
