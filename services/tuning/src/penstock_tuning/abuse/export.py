"""Writes trained weights as the ONNX file, configuration and digest that the safety service loads.

Inputs: `ids` int64 (segments, longest), padded with 0. Output: `probability` float32 (segments,). Weights are int8
with one scale; the graph is Gather, sum over the row, division by the square root of its length, sigmoid.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock_tuning.abuse.train import Weights

CLIP_PERCENTILE = 99.99
OPSET = 17
IR_VERSION = 8


def quantize(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], float]:
    """Symmetric int8 with one scale; the few weights beyond the 99.99th percentile are clipped."""
    used = np.abs(table[table != 0])
    scale = float(np.percentile(used, CLIP_PERCENTILE)) / 127.0
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale


def graph(weights: Weights) -> onnx.ModelProto:
    """The classifier as an ONNX model."""
    table, scale = quantize(weights.table)
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array(scale, dtype=np.float32), "scale"),
        numpy_helper.from_array(np.array(weights.bias, dtype=np.float32), "bias"),
        numpy_helper.from_array(np.array(0, dtype=np.int64), "padding"),
        numpy_helper.from_array(np.array(1, dtype=np.float32), "one"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "row"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["gathered"]),
        helper.make_node("Cast", ["gathered"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["weights", "row"], ["total"], keepdims=0),
        helper.make_node("Greater", ["ids", "padding"], ["present"]),
        helper.make_node("Cast", ["present"], ["counted"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["counted", "row"], ["count"], keepdims=0),
        helper.make_node("Max", ["count", "one"], ["atleast"]),
        helper.make_node("Sqrt", ["atleast"], ["norm"]),
        helper.make_node("Mul", ["total", "scale"], ["scaled"]),
        helper.make_node("Div", ["scaled", "norm"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "abusive_language",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["segments", "longest"])],
            [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["segments"])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="penstock-tuning",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write(weights: Weights, thresholds: dict[str, float], report: dict[str, Any], out: Path) -> None:
    """Writes `model.onnx`, `config.json` and `report.json` into `out`, creating it."""
    out.mkdir(parents=True, exist_ok=True)
    data = graph(weights).SerializeToString(deterministic=True)
    (out / "model.onnx").write_bytes(data)
    config = {
        "label": "abuse",
        "features": asdict(weights.features),
        "thresholds": thresholds,
        "model_sha256": hashlib.sha256(data).hexdigest(),
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
