"""What the machine could do at most, measured in the same run: bytes a second from memory, multiplications a second.

And what a model asks of it: the weights that one pass reads, and the multiplications of one token.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

STREAM_BYTES = 256 << 20
"""Of each array: many times any cache."""
_CHUNK = 1 << 16
"""Elements. A piece stays in the cache from one of numpy's passes over it to the next."""
PRODUCT = (512, 896, 4864)
"""Rows, depth and columns: a prompt's longest stretch through the widest matrix of the 0.5B configuration."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Of one model."""

    bytes_per_pass: int
    """Weights and their scales, each read once in a pass, whatever its rows. Embeddings are looked up, not read."""
    products_per_token: int
    """Multiplications with weights in a pass, for each token, without the vocabulary's."""
    products_of_vocabulary: int
    """Likewise of the vocabulary's matrix, for each token whose logits are computed."""


class Machine:
    """The machine's limits, with so many threads."""

    def __init__(self, threads: int, stream_bytes: int = STREAM_BYTES) -> None:
        self._threads = threads
        self._stream_bytes = stream_bytes

    def reading(self, repeats: int = 5) -> float:
        """Bytes a second that are read, which is what weights are: the maximum of large arrays, all threads."""
        arrays = [np.ones(self._stream_bytes // 4, np.float32) for _ in range(self._threads)]
        seconds = _together([array.max for array in arrays], repeats)
        return sum(array.nbytes for array in arrays) / seconds

    def triad(self, repeats: int = 5) -> float:
        """Bytes a second of STREAM's triad a = b + s * c, counted as STREAM does: three arrays.

        Source: McCalpin, Memory Bandwidth and Machine Balance in Current High Performance Computers, 1995.
        """
        size = self._stream_bytes // 4
        triples = [[np.ones(size, np.float32) for _ in range(3)] for _ in range(self._threads)]
        seconds = _together([_triad(*arrays) for arrays in triples], repeats)
        return 3 * 4 * size * self._threads / seconds

    def product(self, repeats: int = 7) -> float:
        """Floating-point operations a second of a float32 matrix product (numpy's BLAS)."""
        rows, depth, columns = PRODUCT
        left = np.ones((rows, depth), np.float32)
        right = np.ones((depth, columns), np.float32)
        out = np.empty((rows, columns), np.float32)
        return 2 * rows * depth * columns / _alone(lambda: np.matmul(left, right, out=out), repeats)

    def kernel(self, repeats: int = 7) -> float:
        """The same of ONNX Runtime's own product with int4 weights, alone: what prefill could reach with it.

        Random weights, blocks of 32, computed in int8 as the builder's graphs are (accuracy level 4).
        """
        import onnx
        import onnxruntime as ort

        rows, depth, columns = PRODUCT
        random = np.random.default_rng(0)
        packed = random.integers(0, 256, (columns, depth // 32, 16), np.uint8)
        scales = random.random(columns * depth // 32, np.float32)
        node = onnx.helper.make_node(
            "MatMulNBits",
            ["a", "b", "scales"],
            ["y"],
            domain="com.microsoft",
            K=depth,
            N=columns,
            bits=4,
            block_size=32,
            accuracy_level=4,
        )
        graph = onnx.helper.make_graph(
            [node],
            "product",
            [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [rows, depth])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [rows, columns])],
            [onnx.numpy_helper.from_array(packed, "b"), onnx.numpy_helper.from_array(scales, "scales")],
        )
        opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {"a": random.random((rows, depth), np.float32)}
        return 2 * rows * depth * columns / _alone(lambda: session.run(None, feeds), repeats)


def asked(folder: Path) -> Asked:
    """What a builder's folder asks for, read from its graph."""
    import onnx

    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    held = {each.name: each for each in graph.initializer}
    read: set[str] = set()
    inner = vocabulary = 0
    for node in graph.node:
        # the table that a gather looks up is its first input
        looked_up = {node.input[0]} if node.op_type.startswith("Gather") else set()
        read |= {name for name in node.input if name in held} - looked_up
        size = _products(node, held)
        if "logits" in node.output:
            vocabulary += size
        else:
            inner += size
    weights = sum(
        math.prod(held[name].dims) * onnx.helper.tensor_dtype_to_np_dtype(held[name].data_type).itemsize
        for name in read
    )
    return Asked(weights, inner, vocabulary)


def prefill_operations(model: Asked, tokens: int) -> int:
    """Floating-point operations that a prompt needs: two for each product; logits of its last token alone.

    Attention's own are left out: at 512 tokens they are a few hundredths.
    """
    return 2 * (model.products_per_token * tokens + model.products_of_vocabulary)


def _products(node: Any, held: Mapping[str, Any]) -> int:
    if node.op_type == "MatMulNBits":
        sizes = {each.name: each.i for each in node.attribute}
        return int(sizes["K"] * sizes["N"])
    if node.op_type in ("MatMul", "Gemm") and node.input[1] in held:
        return math.prod(held[node.input[1]].dims)
    return 0


def _triad(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], c: npt.NDArray[np.float32]) -> Callable[[], None]:
    def run() -> None:
        for start in range(0, len(a), _CHUNK):
            piece = slice(start, start + _CHUNK)
            np.multiply(c[piece], np.float32(3), out=a[piece])
            np.add(a[piece], b[piece], out=a[piece])

    return run


def _alone(work: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, median of rounds of eight."""
    times = []
    work()
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(8):
            work()
        times.append((time.perf_counter() - began) / 8)
    return statistics.median(times)


def _together(works: list[Callable[[], object]], repeats: int) -> float:
    """Seconds of the fastest of several rounds in which each thread does its work, as STREAM counts."""
    best = float("inf")
    for _ in range(repeats + 1):
        threads = [threading.Thread(target=work) for work in works]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - began)
    return best
