"""The shipped folder: complete, unchanged since its export, and small."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from penstock_tuning.lm.config import load_config
from penstock_tuning.lm.export import SUMS, folder_bytes, write_checksums
from penstock_tuning.training.attribution import CARD

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "deploy" / "models" / "penstock-lm"


def test_the_files_are_those_of_the_checksums() -> None:
    listed = dict(reversed(line.split("  ")) for line in (MODEL / SUMS).read_text(encoding="utf-8").splitlines())
    present = {file.name for file in MODEL.iterdir()} - {CARD, SUMS}
    assert set(listed) == present
    for name, digest in listed.items():
        assert hashlib.sha256((MODEL / name).read_bytes()).hexdigest() == digest, name


def test_the_folder_has_what_loaders_expect_within_its_size() -> None:
    needed = {
        "model.onnx",
        "model.onnx.data",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        CARD,
        SUMS,
    }
    assert needed <= {file.name for file in MODEL.iterdir()}
    assert folder_bytes(MODEL) <= load_config("cpu").export.max_megabytes * 1e6 == 20_000_000


def test_the_reference_answers_are_of_this_model() -> None:
    fixture = json.loads((ROOT / "tests" / "fixtures" / "lm_greedy.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((MODEL / "model.onnx.data").read_bytes()).hexdigest()
    assert fixture["model_data_sha256"] == digest
    assert len(fixture["prompts"]) == 12
    for prompt in fixture["prompts"]:
        assert (prompt["token_ids"][-1] == 2) == (prompt["finish_reason"] == "stop")
        assert 0 < len(prompt["token_ids"]) <= fixture["max_new_tokens"] == 64


def test_checksums_leave_the_card_out(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"abc")
    (tmp_path / CARD).write_text("card", encoding="utf-8")
    write_checksums(tmp_path)
    write_checksums(tmp_path)
    assert (tmp_path / SUMS).read_text(encoding="utf-8") == f"{hashlib.sha256(b'abc').hexdigest()}  model.onnx\n"
