"""From a checkpoint to a model folder in the layout of the onnxruntime-genai builder, quantized, measured, described.

The folder is put in place by renames, and only where every check passed. Needs the extra `train`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from penstock_tuning.data import manifest as manifests
from penstock_tuning.lm.card import GENERATED, model_card
from penstock_tuning.lm.config import LmConfig
from penstock_tuning.lm.errors import ExportRejectedError
from penstock_tuning.lm.evaluate import evaluate, together
from penstock_tuning.lm.generator import samples
from penstock_tuning.lm.prepare import Prepared
from penstock_tuning.lm.record import run_record
from penstock_tuning.lm.runtime import OnnxModel, genai_greedy, load_tokenizer, prompt_ids, torch_greedy
from penstock_tuning.lm.tokenizer import save_tokenizer
from penstock_tuning.training.attribution import CARD, NOTICE, notice, origins
from penstock_tuning.training.checkpoints import load_checkpoint
from penstock_tuning.training.folder import put_in_place
from penstock_tuning.training.hardware import hardware, used
from penstock_tuning.training.record import RECORD

_log = structlog.get_logger()
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


def export(config: LmConfig, prepared: Prepared, measured: dict[str, Any], work: Path, target: Path) -> dict[str, Any]:
    """Export the checkpoint of a finished run and return its record.

    Args:
        config: the recipe.
        prepared: what the run read.
        measured: the held-out texts.
        work: the folder of the run.
        target: the folder to put in place; untouched where a check fails.

    Raises:
        CheckpointMissingError: nothing was trained.
        ExportRejectedError: the builder failed, runtimes answer differently, quantization costs too much, or the
            folder is too large.
    """
    from penstock_tuning.lm.train import load_model

    began = time.monotonic()
    state = load_checkpoint(work)
    model = load_model(work, config)
    source, fp32, quantized = work / "hf", work / "fp32", work / "quantized"
    model.config.dtype = "float32"
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(source)
    for folder, precision in ((source, ""), (fp32, "fp32"), (quantized, f"int{config.export.bits}")):
        if precision:
            _build(source, folder, precision, config)
        save_tokenizer(prepared.tokenizer, folder, config.shape.context)
    _agree(model, config, fp32, quantized)

    result = evaluate(quantized, measured, prompts=config.export.prompts, seed=config.seed, reference=fp32)
    text, tasks = together(result["text"]), result["tasks_held_out_phrases"]["all"]
    metrics = {name: round(text[name], 4) for name in ("bits_per_byte", "fp32_bits_per_byte", "same_next_token")}
    metrics |= {"perplexity": round(text["perplexity"], 2)}
    metrics |= {name: round(tasks[name], 4) for name in ("quoted", "valid_json", "ended", "exact") if name in tasks}
    _log.info("lm.export.measured", **metrics)
    _accept(config, text["bits_per_byte"] - text["fp32_bits_per_byte"])

    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(quantized, new)
    metrics["megabytes"] = round(folder_bytes(new) / 1e6, 2)
    record = run_record(
        config,
        prepared.card,
        seconds={
            "preparation": prepared.card["seconds"],
            "training": state["seconds"],
            "export": time.monotonic() - began,
        },
        history=state["history"],
        metrics=metrics,
        measured=result,
        machine=hardware() | used(config.machine),
    )
    manifest = manifests.load()
    read = [manifest.sources[name] for name in prepared.card["sources"]]
    (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (new / CARD).write_text(model_card(record, origins(read)), "utf-8")
    (new / NOTICE).write_text(notice(read, config.name, GENERATED), "utf-8")
    write_checksums(new)
    if (size := folder_bytes(new)) > config.export.max_megabytes * 1e6:
        shutil.rmtree(new)
        raise ExportRejectedError(f"the folder has {size} bytes, {config.export.max_megabytes:g} MB are allowed")
    put_in_place(new, target)
    return record


def _build(source: Path, target: Path, precision: str, config: LmConfig) -> None:
    shutil.rmtree(target, ignore_errors=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
    command += ["-p", precision, "-e", "cpu", "-c", str(target.parent / "cache")]
    if precision != "fp32":
        settings = config.export
        command += ["--extra_options", f"block_size={settings.block_size}", f"accuracy_level={settings.accuracy_level}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportRejectedError(f"the model builder failed ({precision}): {done.stderr[-2000:]}")


def _agree(model: Any, config: LmConfig, fp32: Path, quantized: Path) -> None:
    """Refuse folders whose greedy answers differ from the network's, or between the two runtimes."""
    tokenizer = load_tokenizer(quantized)
    made = samples(config.seed + 100, "held_out", min(_CHECKED_PROMPTS, config.export.prompts))
    prompts = [prompt_ids(tokenizer, quantized, one.turns[:-1]) for one in made]
    pairs = (
        ("fp32 export against PyTorch", torch_greedy(model), OnnxModel(fp32).greedy),
        ("onnxruntime-genai against onnxruntime", genai_greedy(quantized), OnnxModel(quantized).greedy),
    )
    for name, left, right in pairs:
        differing = sum(left(ids, _CHECKED_TOKENS) != right(ids, _CHECKED_TOKENS) for ids in prompts)
        _log.info("lm.export.checked", check=name, prompts=len(prompts), differing=differing)
        if differing:
            raise ExportRejectedError(f"{name}: {differing} of {len(prompts)} greedy answers differ")


def _accept(config: LmConfig, cost: float) -> None:
    if not cost <= config.export.max_cost:
        raise ExportRejectedError(
            f"int{config.export.bits} costs {cost:.4f} bits for a byte of held-out text, "
            f"{config.export.max_cost:g} are allowed"
        )
