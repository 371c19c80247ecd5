"""The encoder as an ONNX graph, written node by node from NumPy weights.

Plain operators of opset 17, dynamic axes, padding by an attention mask. Written by hand because the graph is then the
same with every version of torch, and its matrices are those that dynamic quantization looks for. Embeddings can be
stored as int8 with a scale for each row: a quantizer would take one scale for all of them. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock_tuning.encoder.config import Shape
from penstock_tuning.encoder.rotary import rotary_tables

OPSET = 17
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "last_hidden_state"
_IR_VERSION = 8
_EPSILON = 1e-5
_HIDDEN = -1e9
"""Added to the score of a padding token."""

Arrays = Mapping[str, NDArray[np.float32]]


def encoder_graph(weights: Arrays, shape: Shape, *, int8_embeddings: bool) -> Any:
    """An `onnx.ModelProto`: `input_ids` and `attention_mask`, int64 `[batch, tokens]`, to `last_hidden_state`, float32
    `[batch, tokens, width]`. `tokens` is at most the context; hidden states of padding mean nothing.
    """
    return _Writer(weights, shape).write(int8_embeddings)


class _Writer:
    def __init__(self, weights: Arrays, shape: Shape) -> None:
        self._weights = weights
        self._shape = shape
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def write(self, int8_embeddings: bool) -> Any:
        shape = self._shape
        cosine, sine = self._turns()
        bias = self._mask_bias()
        states = self._norm(self._embed(int8_embeddings), "model.embeddings.norm")
        for layer in range(shape.layers):
            own = f"model.layers.{layer}"
            read = self._norm(states, f"{own}.attn_norm") if layer else states
            states = self._node("Add", states, self._attention(read, own, cosine, sine, bias))
            states = self._node("Add", states, self._unit(self._norm(states, f"{own}.mlp_norm"), own))
        self._norm(states, "model.final_norm", output=OUTPUT)
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "tokens", shape.width])],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="penstock-tuning",
        )
        onnx.checker.check_model(model)
        return model

    def _node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        return self._split(kind, *inputs, outputs=[output or f"{kind}_{len(self._nodes)}"], **attributes)[0]

    def _split(self, kind: str, *inputs: str, outputs: list[str], **attributes: Any) -> list[str]:
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=f"node_{len(self._nodes)}", **attributes))
        return outputs

    def _halves(self, of: str) -> list[str]:
        return self._split("Split", of, outputs=[f"half_{len(self._nodes)}_{part}" for part in "ab"], axis=-1)

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _integers(self, *values: int) -> str:
        return self._constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def _turns(self) -> list[str]:
        """Cosines and sines of the input's places, each `[tokens, 1, head_size / 2]`."""
        tables = rotary_tables(self._shape.context, self._shape.head_size, self._shape.rope_theta)
        tokens = self._node("Slice", self._node("Shape", "input_ids"), self._integers(1), self._integers(2))
        names = zip(("cosines", "sines"), tables, strict=True)
        return [
            self._node("Slice", self._constant(name, table[:, None]), self._integers(0), tokens, self._integers(0))
            for name, table in names
        ]

    def _mask_bias(self) -> str:
        """`[batch, 1, 1, tokens]`: 0 for a token, a large negative number for padding."""
        mask = self._node("Cast", "attention_mask", to=TensorProto.FLOAT)
        absent = self._node("Sub", self._constant("one", np.array(1, np.float32)), mask)
        bias = self._node("Mul", absent, self._constant("hidden", np.array(_HIDDEN, np.float32)))
        return self._node("Unsqueeze", bias, self._integers(1, 2))

    def _embed(self, int8: bool) -> str:
        table = self._weights["model.embeddings.tok_embeddings.weight"]
        if not int8:
            return self._node("Gather", self._constant("embeddings", table), "input_ids")
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
        rounded = np.rint(table / scales).astype(np.int8)
        rows = self._node("Gather", self._constant("embeddings", rounded), "input_ids")
        scale = self._node("Gather", self._constant("embedding_scales", scales.astype(np.float32)), "input_ids")
        return self._node("Mul", self._node("Cast", rows, to=TensorProto.FLOAT), scale)

    def _norm(self, states: str, name: str, output: str | None = None) -> str:
        scale = self._constant(f"{name}.weight", self._weights[f"{name}.weight"])
        return self._node("LayerNormalization", states, scale, output=output, axis=-1, epsilon=_EPSILON)

    def _linear(self, states: str, name: str, weight: NDArray[np.float32] | None = None) -> str:
        matrix = self._weights[f"{name}.weight"] if weight is None else weight
        return self._node("MatMul", states, self._constant(f"{name}.weight", matrix.T))

    def _attention(self, states: str, own: str, cosine: str, sine: str, bias: str) -> str:
        shape = self._shape
        weight = self._weights[f"{own}.attn.Wqkv.weight"].copy()
        weight[: shape.width] *= shape.head_size**-0.5  # what scores are divided by
        whole = self._linear(states, f"{own}.attn.Wqkv", weight)
        parts = self._split(
            "Split",
            whole,
            self._integers(2 * shape.width, shape.width),
            outputs=[f"{own}.turned", f"{own}.values"],
            axis=-1,
        )
        both = self._node("Reshape", parts[0], self._integers(0, 0, 2 * shape.heads, shape.head_size))
        first, second = self._halves(both)
        turned = self._node(
            "Concat",
            self._node("Sub", self._node("Mul", first, cosine), self._node("Mul", second, sine)),
            self._node("Add", self._node("Mul", second, cosine), self._node("Mul", first, sine)),
            axis=-1,
        )
        query, key = self._split("Split", turned, outputs=[f"{own}.query", f"{own}.key"], axis=2)
        values = self._node("Reshape", parts[1], self._integers(0, 0, shape.heads, shape.head_size))
        scores = self._node(
            "MatMul",
            self._node("Transpose", query, perm=[0, 2, 1, 3]),
            self._node("Transpose", key, perm=[0, 2, 3, 1]),
        )
        shares = self._node("Softmax", self._node("Add", scores, bias), axis=-1)
        seen = self._node("MatMul", shares, self._node("Transpose", values, perm=[0, 2, 1, 3]))
        joined = self._node(
            "Reshape", self._node("Transpose", seen, perm=[0, 2, 1, 3]), self._integers(0, 0, shape.width)
        )
        return self._linear(joined, f"{own}.attn.Wo")

    def _unit(self, states: str, own: str) -> str:
        gated, through = self._halves(self._linear(states, f"{own}.mlp.Wi"))
        opened = self._node("Mul", self._node("Mul", gated, self._node("Sigmoid", gated)), through)
        return self._linear(opened, f"{own}.mlp.Wo")
