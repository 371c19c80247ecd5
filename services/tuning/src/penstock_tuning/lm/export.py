"""Exports the newest checkpoint: Hugging Face folder, then the onnxruntime-genai builder in fp32 and int8.

The shipped folder is put in place by renames only after every check has passed. The model card is written by
hand and kept as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import structlog

from penstock_tuning.lm.config import LmConfig
from penstock_tuning.lm.errors import ExportRejectedError
from penstock_tuning.lm.generator import samples
from penstock_tuning.lm.runtime import OnnxModel, genai_greedy, load_tokenizer, prompt_ids, torch_greedy
from penstock_tuning.lm.tokenizer import save_tokenizer
from penstock_tuning.lm.train import load_model

_log = structlog.get_logger()
CARD = "MODEL_CARD.md"
SUMS = "SHA256SUMS"
_CHECKED_PROMPTS = 50
_CHECKED_TOKENS = 48


def folder_bytes(folder: Path) -> int:
    """Size of all files of a folder."""
    return sum(file.stat().st_size for file in folder.iterdir())


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over every file but the card and itself."""
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(folder.iterdir())
        if file.name not in (CARD, SUMS)
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _build(source: Path, target: Path, precision: str, extra: list[str]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
    command += ["-p", precision, "-e", "cpu", "-c", str(target.parent / "cache")]
    if extra:
        command += ["--extra_options", *extra]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportRejectedError(f"the model builder failed ({precision}): {done.stderr[-2000:]}")


def _check(model: Any, config: LmConfig, fp32: Path, shipped: Path) -> None:
    tokenizer = load_tokenizer(shipped)
    held_out = islice(samples(config.seed + 100, "held_out", _CHECKED_PROMPTS), _CHECKED_PROMPTS)
    prompts = [prompt_ids(tokenizer, shipped, sample.turns[:-1]) for sample in held_out]
    pairs = (
        ("fp32 export against PyTorch", torch_greedy(model), OnnxModel(fp32).greedy),
        ("onnxruntime-genai against onnxruntime", genai_greedy(shipped), OnnxModel(shipped).greedy),
    )
    for name, left, right in pairs:
        differing = sum(left(ids, _CHECKED_TOKENS) != right(ids, _CHECKED_TOKENS) for ids in prompts)
        _log.info("lm.export.checked", check=name, prompts=len(prompts), differing=differing)
        if differing:
            raise ExportRejectedError(f"{name}: {differing} of {len(prompts)} greedy answers differ")
    size = folder_bytes(shipped)
    if size > config.max_folder_bytes:
        raise ExportRejectedError(f"the folder has {size} bytes, {config.max_folder_bytes} are allowed")


def put_in_place(new: Path, target: Path) -> None:
    """Swap a finished folder in by renames; both must lie on one file system."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def export(work: Path, target: Path, config: LmConfig) -> None:
    """Export the newest checkpoint of `work` to `target`.

    Raises:
        CheckpointMissingError: nothing was trained.
        ExportRejectedError: the builder or a check failed; `target` is untouched.
    """
    model, step = load_model(work, config)
    source, fp32, shipped = work / "hf", work / "fp32", work / "int8"
    model.config.dtype = "float32"
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(source)
    tokenizer = load_tokenizer(work / "tokenizer")
    save_tokenizer(tokenizer, source, config.context)
    _build(source, fp32, "fp32", [])
    quantisation = [f"block_size={config.quant_block_size}", f"accuracy_level={config.quant_accuracy_level}"]
    _build(source, shipped, "int8", quantisation)
    for folder in (fp32, shipped):
        save_tokenizer(tokenizer, folder, config.context)
    _check(model, config, fp32, shipped)
    write_checksums(shipped)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(shipped, new)
    if (target / CARD).exists():
        shutil.copy2(target / CARD, new / CARD)
    put_in_place(new, target)
    _log.info("lm.export.done", step=step, bytes=folder_bytes(target), folder=str(target))
