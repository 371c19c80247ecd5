"""The heads as nodes behind the encoder's: one graph, an output for each head, calibration folded into the weights.

The heads' own matrices stay in fp32: they are small, and probabilities come straight out of them. Needs the extra
`train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from penstock_tuning.data.example import SAFETY
from penstock_tuning.encoder.config import Shape
from penstock_tuning.encoder.graph import OUTPUT, GraphWriter
from penstock_tuning.heads.calibrate import Calibrated

VECTORS, EMBEDDING, SAFE, SAFE_TOKENS, TAGS, FOLLOWS = (
    "token_embeddings", "embedding", "safety", "safety_tokens", "pii", "entailment",
)  # fmt: skip
KEPT = ("heads_small", "heads_projection")
"""The matrices' nodes, which stay in fp32."""
_POOLED = len(SAFETY) + 1
_SMALLEST = 1e-12

Arrays = Mapping[str, NDArray[np.float32]]


def heads_graph(
    weights: Arrays, shape: Shape, tasks: Sequence[str], calibrated: Calibrated | None = None, *, int8_embeddings: bool
) -> Any:
    """An `onnx.ModelProto`: `input_ids` and `attention_mask`, int64 `[batch, tokens]`, to the outputs of `tasks`.

    First comes an output with a vector for each token, so that the folder is an encoder for whoever pools by itself.
    """
    writer = GraphWriter(weights, shape)
    states = writer.states(int8_embeddings=int8_embeddings)
    outputs: dict[str, list[str | int]] = {}
    if "similarity" in tasks:
        outputs |= _vectors(writer, states, weights["heads.similarity.weight"])
    else:
        outputs[OUTPUT] = ["batch", "tokens", shape.width]
    if len(tasks) > ("similarity" in tasks):
        outputs |= _judgements(writer, states, weights, tasks, calibrated or Calibrated())
    return writer.finished(outputs)


def _present(writer: GraphWriter) -> str:
    """`[batch, tokens, 1]`: 1 for a token, 0 for padding."""
    return writer.node("Unsqueeze", writer.node("Cast", "attention_mask", to=TensorProto.FLOAT), writer.integers(2))


def _vectors(writer: GraphWriter, states: str, projection: NDArray[np.float32]) -> dict[str, list[str | int]]:
    matrix = writer.constant("heads.projection", projection.T)
    writer.node("MatMul", states, matrix, output=VECTORS, name="heads_projection")
    summed = writer.node("ReduceSum", writer.node("Mul", VECTORS, _present(writer)), writer.integers(1), keepdims=0)
    length = writer.node("ReduceL2", summed, axes=[1], keepdims=1)
    least = writer.constant("heads.smallest", np.array(_SMALLEST, np.float32))
    writer.node("Div", summed, writer.node("Max", length, least), output=EMBEDDING)
    size = int(projection.shape[0])
    return {VECTORS: ["batch", "tokens", size], EMBEDDING: ["batch", size]}


def _judgements(
    writer: GraphWriter, states: str, weights: Arrays, tasks: Sequence[str], calibrated: Calibrated
) -> dict[str, list[str | int]]:
    scale = np.array([one.scale for one in calibrated.pooled], np.float32)
    moved = np.array([one.bias for one in calibrated.pooled], np.float32)
    values = weights["heads.pool.values"] * scale[:, None]
    bias = weights["heads.pool.bias"] * scale + moved
    tags = weights["heads.pii.weight"] / np.float32(calibrated.temperature)
    tags_bias = weights["heads.pii.bias"] / np.float32(calibrated.temperature)
    rows = np.concatenate([weights["heads.pool.attention"], values, tags])
    added = np.concatenate([np.zeros(_POOLED, np.float32), bias, tags_bias])
    small = writer.node("MatMul", states, writer.constant("heads.small", rows.T), name="heads_small")
    logits = writer.node("Add", small, writer.constant("heads.small_bias", added))
    scores, judged, classes = writer.split(
        "Split", logits, writer.integers(_POOLED, _POOLED, len(tags)),
        outputs=["heads.scores", "heads.judged", "heads.classes"], axis=-1,
    )  # fmt: skip
    outputs: dict[str, list[str | int]] = {}
    if {"safety", "entailment"} & {*tasks}:
        outputs |= _pooled(writer, scores, judged, tasks)
    if "pii" in tasks:
        writer.node("Softmax", classes, axis=-1, output=TAGS)
        outputs[TAGS] = ["batch", "tokens", len(tags)]
    return {name: outputs[name] for name in (SAFE, SAFE_TOKENS, TAGS, FOLLOWS) if name in outputs}


def _pooled(writer: GraphWriter, scores: str, judged: str, tasks: Sequence[str]) -> dict[str, list[str | int]]:
    absent = writer.node("Sub", writer.constant("one", np.array(1, np.float32)), _present(writer))
    away = writer.node("Mul", absent, writer.constant("hidden", np.array(-1e9, np.float32)))
    shares = writer.node("Softmax", writer.node("Add", scores, away), axis=1)
    texts = writer.node("ReduceSum", writer.node("Mul", shares, judged), writer.integers(1), keepdims=0)
    safe, follows = writer.split(
        "Split", texts, writer.integers(_POOLED - 1, 1), outputs=["heads.safe", "heads.follows"], axis=-1
    )
    outputs: dict[str, list[str | int]] = {}
    if "safety" in tasks:
        of_tokens, _ = writer.split(
            "Split", judged, writer.integers(_POOLED - 1, 1), outputs=["heads.of_tokens", "heads.rest"], axis=-1
        )
        writer.node("Sigmoid", safe, output=SAFE)
        writer.node("Sigmoid", of_tokens, output=SAFE_TOKENS)
        outputs |= {SAFE: ["batch", _POOLED - 1], SAFE_TOKENS: ["batch", "tokens", _POOLED - 1]}
    if "entailment" in tasks:
        writer.node("Sigmoid", follows, output=FOLLOWS)
        outputs[FOLLOWS] = ["batch", 1]
    return outputs
