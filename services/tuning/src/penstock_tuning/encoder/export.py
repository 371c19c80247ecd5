"""From a checkpoint to a model folder: fp32 and int8 ONNX, what int8 costs, configuration, card, record.

The folder is put in place by renames, and only where every check passed. Needs the extra `train`.
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

from penstock_tuning.data import manifest as manifests
from penstock_tuning.encoder.batches import Batches
from penstock_tuning.encoder.card import model_card
from penstock_tuning.encoder.config import EncoderConfig, Shape
from penstock_tuning.encoder.errors import EncoderRejectedError
from penstock_tuning.encoder.graph import encoder_graph
from penstock_tuning.encoder.model import Weights, hidden_states, rotary, to_numpy
from penstock_tuning.encoder.prepare import Prepared, whole_rows
from penstock_tuning.encoder.quantize import Cost, OnnxEncoder, compare, quantize
from penstock_tuning.encoder.record import run_record
from penstock_tuning.encoder.tokenizer import MASK, PAD, SEPARATOR, SPECIAL, START, save_tokenizer
from penstock_tuning.training.attribution import CARD, NOTICE, notice, origins, sources_read
from penstock_tuning.training.checkpoints import load_checkpoint
from penstock_tuning.training.folder import put_in_place
from penstock_tuning.training.hardware import hardware, used
from penstock_tuning.training.record import RECORD

_log = structlog.get_logger()
GRAPH = "model.onnx"
_CHECK_LENGTH = 128
_TOLERANCE = 2e-3
"""Largest difference of a hidden state in ONNX Runtime from torch's, both fp32; states are normed to about 1."""


def export(config: EncoderConfig, prepared: Prepared, work: Path, target: Path) -> dict[str, Any]:
    """Export the checkpoint of a finished run and return its record.

    Raises:
        CheckpointMissingError: nothing was trained.
        EncoderRejectedError: the graph differs from the network, is too large, or int8 costs too much.
    """
    began = time.monotonic()
    state = load_checkpoint(work)
    weights = state["weights"]
    arrays = to_numpy(weights)
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    plain, source = work / "model-fp32.onnx", work / "model-to-quantize.onnx"
    onnx.save(encoder_graph(arrays, config.shape, int8_embeddings=False), plain)
    onnx.save(encoder_graph(arrays, config.shape, int8_embeddings=True), source)
    quantize(source, new / GRAPH)

    stream = prepared.validation
    length = min(_CHECK_LENGTH, config.shape.context)
    rows = whole_rows(stream, length, config.validation_rows)
    if not len(rows):
        raise EncoderRejectedError(f"no held-out text has {length} tokens to compare the graphs on")
    fp32 = OnnxEncoder(plain)
    _agrees(fp32, weights, config.shape, rows[:4].astype(np.int64))
    batch = Batches(prepared.train, prepared.starts_word, config).fixed(rows.ravel(), length)
    cost = compare(fp32, OnnxEncoder(new / GRAPH), batch, arrays)
    megabytes = round((new / GRAPH).stat().st_size / 1e6, 2)
    _log.info("encoder.export.compared", **cost.rounded(), megabytes=megabytes)
    _accept(config, cost, megabytes)

    save_tokenizer(prepared.tokenizer, new, config.shape.context)
    (new / "config.json").write_text(json.dumps(hf_config(config.shape), indent=2) + "\n", "utf-8")
    held_out = [row["validation_loss"] for row in state["history"] if "validation_loss" in row]
    metrics = cost.rounded() | {"int8_megabytes": megabytes, "packed_validation_loss": held_out[-1]}
    record = run_record(
        config,
        prepared.card,
        seconds={
            "preparation": prepared.card["seconds"],
            "pretraining": state["seconds"],
            "export": time.monotonic() - began,
        },
        history=state["history"],
        metrics=metrics,
        machine=hardware() | used(config.machine),
    )
    read = sources_read(manifests.load())
    (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (new / CARD).write_text(model_card(record, origins(read)), "utf-8")
    (new / NOTICE).write_text(notice(read, config.name), "utf-8")
    put_in_place(new, target)
    return record


def hf_config(shape: Shape) -> dict[str, Any]:
    """config.json: as transformers reads it, the network is a ModernBERT whose layers all see everything."""
    return {
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.context,
        "hidden_activation": "silu",
        "classifier_activation": "silu",
        "norm_eps": 1e-5,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "global_attn_every_n_layers": 1,
        "global_rope_theta": shape.rope_theta,
        "local_rope_theta": shape.rope_theta,
        "pad_token_id": SPECIAL.index(PAD),
        "cls_token_id": SPECIAL.index(START),
        "bos_token_id": SPECIAL.index(START),
        "sep_token_id": SPECIAL.index(SEPARATOR),
        "eos_token_id": SPECIAL.index(SEPARATOR),
        "mask_token_id": SPECIAL.index(MASK),
        "tie_word_embeddings": True,
    }


def _agrees(graph: OnnxEncoder, weights: Weights, shape: Shape, ids: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Refuse a graph whose hidden states differ from the network's, with padding and without."""
    wanted = [hidden_of(weights, shape, torch.from_numpy(row[None])).numpy()[0] for row in ids]
    padded = np.concatenate([ids, np.zeros((len(ids), 7), np.int64)], axis=1)
    mask = np.concatenate([np.ones_like(ids), np.zeros((len(ids), 7), np.int64)], axis=1)
    room = shape.context >= padded.shape[1]
    found = graph(padded, mask)[:, : ids.shape[1]] if room else graph(ids)
    difference = float(np.abs(found - np.stack(wanted)).max())
    if not difference <= _TOLERANCE:
        raise EncoderRejectedError(f"hidden states of the graph differ from the network's by {difference:.2g}")


def hidden_of(weights: Weights, shape: Shape, ids: torch.Tensor) -> torch.Tensor:
    """Hidden states in fp32 of rows without padding, each one text."""
    mask = torch.ones(1, 1, 1, ids.shape[1], dtype=torch.bool)
    with torch.no_grad():
        return hidden_states(weights, shape, ids, mask, rotary(shape, ids.shape[1], "cpu"))


def _accept(config: EncoderConfig, cost: Cost, megabytes: float) -> None:
    if megabytes > config.max_onnx_megabytes:
        raise EncoderRejectedError(f"{megabytes} MB in int8, {config.max_onnx_megabytes:g} are allowed")
    if not cost.mean_cosine >= config.min_cosine:
        raise EncoderRejectedError(
            f"hidden states in int8 have a cosine of {cost.mean_cosine:.4f} with fp32, less than {config.min_cosine:g}"
        )
