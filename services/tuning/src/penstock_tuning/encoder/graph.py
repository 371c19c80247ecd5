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
    writer = GraphWriter(weights, shape)
    writer.states(int8_embeddings=int8_embeddings)
    return writer.finished({OUTPUT: ["batch", "tokens", shape.width]})


class GraphWriter:
    """Writes the encoder's nodes; what comes behind them is added before the graph is finished."""

    def __init__(self, weights: Arrays, shape: Shape) -> None:
        self._weights = weights
        self._shape = shape
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def states(self, *, int8_embeddings: bool) -> str:
        """Write the encoder; the name of its hidden states, float32 `[batch, tokens, width]`."""
        shape = self._shape
        cosine, sine = self._turns()
        bias = self._mask_bias()
        states = self._norm(self._embed(int8_embeddings), "model.embeddings.norm")
        for layer in range(shape.layers):
            own = f"model.layers.{layer}"
            read = self._norm(states, f"{own}.attn_norm") if layer else states
            states = self.node("Add", states, self._attention(read, own, cosine, sine, bias))
            states = self.node("Add", states, self._unit(self._norm(states, f"{own}.mlp_norm"), own))
        return self._norm(states, "model.final_norm", output=OUTPUT)

    def finished(self, outputs: Mapping[str, list[str | int]]) -> Any:
        """The `onnx.ModelProto` with these float32 outputs, by name and shape, in this order."""
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in outputs.items()],
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

    def node(self, kind: str, *inputs: str, output: str | None = None, name: str | None = None, **given: Any) -> str:
        """Add an operator with one output, called `output`; the output's name. `given` are its attributes."""
        return self.split(kind, *inputs, outputs=[output or f"{kind}_{len(self._nodes)}"], name=name, **given)[0]

    def split(self, kind: str, *inputs: str, outputs: list[str], name: str | None = None, **given: Any) -> list[str]:
        """Add an operator with these outputs."""
        own = name or f"node_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=own, **given))
        return outputs

    def _halves(self, of: str) -> list[str]:
        return self.split("Split", of, outputs=[f"half_{len(self._nodes)}_{part}" for part in "ab"], axis=-1)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Keep an array under a name that is not used yet, or was for the same; the name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant of integers."""
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def _turns(self) -> list[str]:
        """Cosines and sines of the input's places, each `[tokens, 1, head_size / 2]`."""
        tables = rotary_tables(self._shape.context, self._shape.head_size, self._shape.rope_theta)
        tokens = self.node("Slice", self.node("Shape", "input_ids"), self.integers(1), self.integers(2))
        names = zip(("cosines", "sines"), tables, strict=True)
        return [
            self.node("Slice", self.constant(name, table[:, None]), self.integers(0), tokens, self.integers(0))
            for name, table in names
        ]

    def _mask_bias(self) -> str:
        """`[batch, 1, 1, tokens]`: 0 for a token, a large negative number for padding."""
        mask = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        absent = self.node("Sub", self.constant("one", np.array(1, np.float32)), mask)
        bias = self.node("Mul", absent, self.constant("hidden", np.array(_HIDDEN, np.float32)))
        return self.node("Unsqueeze", bias, self.integers(1, 2))

    def _embed(self, int8: bool) -> str:
        table = self._weights["model.embeddings.tok_embeddings.weight"]
        if not int8:
            return self.node("Gather", self.constant("embeddings", table), "input_ids")
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
        rounded = np.rint(table / scales).astype(np.int8)
        rows = self.node("Gather", self.constant("embeddings", rounded), "input_ids")
        scale = self.node("Gather", self.constant("embedding_scales", scales.astype(np.float32)), "input_ids")
        return self.node("Mul", self.node("Cast", rows, to=TensorProto.FLOAT), scale)

    def _norm(self, states: str, name: str, output: str | None = None) -> str:
        scale = self.constant(f"{name}.weight", self._weights[f"{name}.weight"])
        return self.node("LayerNormalization", states, scale, output=output, axis=-1, epsilon=_EPSILON)

    def _linear(self, states: str, name: str, weight: NDArray[np.float32] | None = None) -> str:
        matrix = self._weights[f"{name}.weight"] if weight is None else weight
        return self.node("MatMul", states, self.constant(f"{name}.weight", matrix.T))

    def _attention(self, states: str, own: str, cosine: str, sine: str, bias: str) -> str:
        shape = self._shape
        weight = self._weights[f"{own}.attn.Wqkv.weight"].copy()
        weight[: shape.width] *= shape.head_size**-0.5  # what scores are divided by
        whole = self._linear(states, f"{own}.attn.Wqkv", weight)
        parts = self.split(
            "Split",
            whole,
            self.integers(2 * shape.width, shape.width),
            outputs=[f"{own}.turned", f"{own}.values"],
            axis=-1,
        )
        both = self.node("Reshape", parts[0], self.integers(0, 0, 2 * shape.heads, shape.head_size))
        first, second = self._halves(both)
        turned = self.node(
            "Concat",
            self.node("Sub", self.node("Mul", first, cosine), self.node("Mul", second, sine)),
            self.node("Add", self.node("Mul", second, cosine), self.node("Mul", first, sine)),
            axis=-1,
        )
        query, key = self.split("Split", turned, outputs=[f"{own}.query", f"{own}.key"], axis=2)
        values = self.node("Reshape", parts[1], self.integers(0, 0, shape.heads, shape.head_size))
        scores = self.node(
            "MatMul",
            self.node("Transpose", query, perm=[0, 2, 1, 3]),
            self.node("Transpose", key, perm=[0, 2, 3, 1]),
        )
        shares = self.node("Softmax", self.node("Add", scores, bias), axis=-1)
        seen = self.node("MatMul", shares, self.node("Transpose", values, perm=[0, 2, 1, 3]))
        joined = self.node("Reshape", self.node("Transpose", seen, perm=[0, 2, 1, 3]), self.integers(0, 0, shape.width))
        return self._linear(joined, f"{own}.attn.Wo")

    def _unit(self, states: str, own: str) -> str:
        gated, through = self._halves(self._linear(states, f"{own}.mlp.Wi"))
        opened = self.node("Mul", self.node("Mul", gated, self.node("Sigmoid", gated)), through)
        return self._linear(opened, f"{own}.mlp.Wo")
