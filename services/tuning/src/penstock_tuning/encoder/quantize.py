"""Dynamic int8 quantization of an exported encoder, and what it cost: two graphs compared on held-out text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.encoder.masking import Masked

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_EPSILON = 1e-5
_TOGETHER = 8


@dataclass(frozen=True)
class Cost:
    """What int8 changes."""

    mean_cosine: float
    """Of the hidden states of a token in int8 with those in fp32."""
    low_cosine: float
    """The hundredth part below which the worst tokens lie."""
    fp32_loss: float
    """Mean cross-entropy of masked tokens, nats."""
    int8_loss: float
    tokens: int
    """Compared."""

    def rounded(self) -> dict[str, float]:
        """The figures with four decimals."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def quantize(source: Path, target: Path, keep: Sequence[str] = ()) -> None:
    """Write `target` with the matrices of `source` in int8, one scale for each column; nodes in `keep` stay as is.

    Weights use 7 of the 8 bits, so that processors without VNNI do not overflow in pairs of products
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html): the same model everywhere.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(keep),
        extra_options={"MatMulConstBOnly": True},
    )


class OnnxEncoder:
    """An exported encoder under ONNX Runtime."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Last hidden states `[rows, tokens, width]` of `[rows, tokens]`; without a mask nothing is padding."""
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids) if mask is None else mask}
        states: NDArray[np.float32] = self._session.run(None, given)[0]
        return states


def compare(fp32: OnnxEncoder, int8: OnnxEncoder, batch: Masked, weights: Mapping[str, NDArray[np.float32]]) -> Cost:
    """Both graphs on the same masked rows, each row one text; `weights` has the head of pretraining."""
    cosines, losses = [], []
    for start in range(0, len(batch.ids), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        states = [graph(batch.ids[part]) for graph in (fp32, int8)]
        cosines.append(_cosine(*states).ravel())
        losses.append([_losses(one, batch.places[part], batch.labels[part], weights) for one in states])
    together = np.concatenate(cosines)
    before, after = (float(np.concatenate([pair[which] for pair in losses]).mean()) for which in (0, 1))
    return Cost(float(together.mean()), float(np.quantile(together, 0.01)), before, after, len(together))


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[Any]:
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(-1) / np.maximum(lengths, 1e-12))


def _losses(
    states: NDArray[np.float32],
    places: NDArray[np.int64],
    labels: NDArray[np.int64],
    weights: Mapping[str, NDArray[np.float32]],
) -> NDArray[Any]:
    """Cross-entropy of each masked place: the head of pretraining in NumPy."""
    chosen = np.take_along_axis(states, places[..., None], axis=1).reshape(-1, states.shape[-1])
    read = chosen @ weights["head.dense.weight"].T
    read = read / (1 + np.exp(-read))
    read = read - read.mean(-1, keepdims=True)
    read = read / np.sqrt((read**2).mean(-1, keepdims=True) + _EPSILON) * weights["head.norm.weight"]
    logits = read @ weights["model.embeddings.tok_embeddings.weight"].T + weights["decoder.bias"]
    top = logits.max(-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
    return np.asarray(total - logits[np.arange(len(logits)), labels.ravel()])
