"""From a checkpoint to a model folder: calibration, fp32 and int8 graphs, what int8 costs, card, record.

Calibration and thresholds are of the int8 graph, because that is what runs. The folder is put in place by renames,
and only where every check passed. Needs the extra `train`.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import structlog
import torch
from torch.nn import functional

from penstock.heads.config import VERSION
from penstock.heads.runtime import Heads
from penstock.heads.windows import framed
from penstock.models.digests import sha256_of
from penstock_tuning.data import manifest as manifests
from penstock_tuning.data.example import PII, RESOURCE, SAFETY
from penstock_tuning.encoder.config import Shape
from penstock_tuning.encoder.export import hf_config
from penstock_tuning.encoder.model import Weights, rotary, to_numpy
from penstock_tuning.encoder.quantize import quantize
from penstock_tuning.encoder.tokenizer import save_tokenizer
from penstock_tuning.heads import measure
from penstock_tuning.heads.calibrate import Calibrated
from penstock_tuning.heads.card import model_card
from penstock_tuning.heads.config import HeadsConfig
from penstock_tuning.heads.errors import HeadsRejectedError
from penstock_tuning.heads.graph import KEPT, heads_graph
from penstock_tuning.heads.model import (
    PII_BIAS,
    PII_WEIGHT,
    PROJECTION,
    VALUES,
    VALUES_BIAS,
    embedded,
    pooled,
    states_of,
)
from penstock_tuning.heads.prepare import Prepared
from penstock_tuning.heads.record import Base, run_record
from penstock_tuning.training.attribution import CARD, NOTICE, notice, origins, sources_read
from penstock_tuning.training.checkpoints import load_checkpoint
from penstock_tuning.training.folder import put_in_place
from penstock_tuning.training.hardware import hardware, used
from penstock_tuning.training.record import RECORD

_log = structlog.get_logger()
GRAPH = "model.onnx"
_PLAIN = "model-fp32.onnx"
_TOLERANCE = 2e-3
"""Largest difference of an output in ONNX Runtime from torch's, both fp32."""


def export(config: HeadsConfig, base: Base, prepared: Prepared, work: Path, target: Path) -> dict[str, Any]:
    """Export the checkpoint of a finished run and return its record.

    Raises:
        CheckpointMissingError: nothing was trained.
        HeadsRejectedError: the graph differs from the network, is too large, or int8 costs too much.
    """
    began = time.monotonic()
    state = load_checkpoint(work)
    weights, shape = state["weights"], base.config.shape
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_tokenizer(base.tokenizer, new, shape.context)

    _graphs(weights, shape, config, None, folder=new, work=work)
    _write(new, config, shape, {})
    _agrees(Heads(new, graph=work.resolve() / _PLAIN), weights, shape, prepared, config)
    first = measure.score(Heads(new), prepared.texts)
    calibrated = measure.fit(first, prepared.texts)
    _graphs(weights, shape, config, calibrated, folder=new, work=work)
    foreseen = measure.calibrated_scores(first, calibrated)
    said = measure.settings(foreseen, calibrated, prepared.texts, config.calibration)
    if "similarity" in said:
        said["similarity"]["dimensions"] = config.dimensions
    _write(new, config, shape, said)

    scores = measure.score(Heads(new), prepared.texts)
    plain = measure.score(Heads(new, graph=work.resolve() / _PLAIN), prepared.texts)
    change = measure.change(plain, scores)
    megabytes = round((new / GRAPH).stat().st_size / 1e6, 2)
    before = measure.figures(plain, prepared.texts, said)
    metrics = measure.figures(scores, prepared.texts, said) | change | {"int8_megabytes": megabytes}
    metrics |= {f"fp32_{name}": value for name, value in before.items() if name.endswith(("auc", "f1"))}
    _log.info("heads.export.measured", **metrics)
    _accept(config, change, megabytes, measure.change(foreseen, scores))

    record = run_record(
        config,
        base,
        prepared.card,
        seconds={
            "preparation": prepared.card["seconds"],
            "training": state["seconds"],
            "export": time.monotonic() - began,
        },
        history=state["history"],
        metrics=metrics,
        machine=hardware() | used(config.machine),
    )
    (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    # The encoder's text and the lists of generated text with them.
    read = sources_read(manifests.load(), ("text", RESOURCE, *config.tasks))
    (new / CARD).write_text(model_card(record, said, origins(read)), "utf-8")
    (new / NOTICE).write_text(notice(read, config.name), "utf-8")
    put_in_place(new, target)
    return record


def _write(folder: Path, config: HeadsConfig, shape: Shape, said: dict[str, Any]) -> None:
    """config.json: the encoder's keys, and under `heads` what a service needs to know, the graph's digest with it."""
    heads = {
        "version": VERSION,
        "window_tokens": config.windows.tokens,
        "overlap_tokens": config.windows.overlap,
        "model_sha256": sha256_of(folder / GRAPH),
    }
    labels = {
        "safety": {"labels": list(SAFETY)},
        "pii": {"labels": ["O", *PII]},
        "similarity": {"dimensions": config.dimensions},
    }
    (folder / "config.json").write_text(
        json.dumps(hf_config(shape) | {"heads": heads | (said or labels)}, indent=2) + "\n", "utf-8"
    )


def _graphs(
    weights: Weights, shape: Shape, config: HeadsConfig, calibrated: Calibrated | None, *, folder: Path, work: Path
) -> None:
    """Write the int8 graph to the folder and that in fp32 to the work folder."""
    arrays = to_numpy(weights)
    source = work / "model-to-quantize.onnx"
    onnx.save(heads_graph(arrays, shape, config.tasks, calibrated, int8_embeddings=False), work / _PLAIN)
    onnx.save(heads_graph(arrays, shape, config.tasks, calibrated, int8_embeddings=True), source)
    quantize(source, folder / GRAPH, keep=KEPT)


def _agrees(heads: Heads, weights: Weights, shape: Shape, prepared: Prepared, config: HeadsConfig) -> None:
    """Refuse a graph in fp32 whose outputs for a few texts differ from the network's."""
    for task in config.tasks:
        for example in prepared.texts[task][:4]:
            ids = framed(heads.ids(example.text)[: config.windows.tokens - 2])
            wanted = _outputs(weights, shape, ids)
            for name, value in heads.outputs(ids).items():
                difference = float(np.abs(wanted[name] - value).max())
                if not difference <= _TOLERANCE:
                    raise HeadsRejectedError(f"{name} of the graph differs from the network's by {difference:.2g}")


def _outputs(weights: Weights, shape: Shape, ids: list[int]) -> dict[str, np.ndarray[Any, Any]]:
    """What the network gives for one row, by the names of the graph's outputs."""
    row = torch.tensor([ids])
    with torch.no_grad():
        states = states_of(weights, shape, row, torch.ones_like(row), rotary(shape, len(ids), "cpu"))[0]
        same = torch.ones(len(ids), dtype=torch.int64)
        judged = functional.linear(states, weights[VALUES], weights[VALUES_BIAS])
        texts = torch.sigmoid(pooled(states, same, 1, weights))[0]
        found = {
            "last_hidden_state": states,
            "token_embeddings": functional.linear(states, weights[PROJECTION]),
            "embedding": embedded(states, same, 1, weights)[0],
            "safety": texts[: len(SAFETY)],
            "safety_tokens": torch.sigmoid(judged[:, : len(SAFETY)]),
            "pii": functional.softmax(functional.linear(states, weights[PII_WEIGHT], weights[PII_BIAS]), dim=1),
            "entailment": texts[len(SAFETY) :],
        }
    return {name: tensor.numpy() for name, tensor in found.items()}


def _accept(config: HeadsConfig, change: dict[str, float], megabytes: float, drift: dict[str, float]) -> None:
    if megabytes > config.max_onnx_megabytes:
        raise HeadsRejectedError(f"{megabytes} MB in int8, {config.max_onnx_megabytes:g} are allowed")
    worst = max(change, key=change.__getitem__)
    if not change[worst] <= config.max_change:
        raise HeadsRejectedError(f"{worst} is {change[worst]}: int8 may change it by {config.max_change:g} on average")
    if not max(drift.values()) <= _TOLERANCE:
        raise HeadsRejectedError(f"the calibrated graph says otherwise than calibration foresaw: {drift}")
