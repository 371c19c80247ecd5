"""Throughput of the encoder on one core, beside a network of MiniLM-L6's size and beside what the core can multiply.

All times are processor time of the thread that runs the graph (ONNX Runtime with one thread runs in the caller's):
other work on the machine slows them little. Runs of what is compared take turns, and the median counts. Needs onnx.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from penstock_tuning.encoder.config import Shape
from penstock_tuning.evaluate.errors import ModelFolderError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ROWS, TOKENS = 8, 128
"""Of a batch: what a service gathers under load."""
TURNS = 15
MINILM = {"width": 384, "layers": 6, "heads": 12, "feed_forward": 1536}
"""MiniLM-L6's numbers in this architecture, whose gated unit has three matrices where MiniLM's has two."""
MINILM_PLAIN = MINILM | {"feed_forward": 1024}
"""The same with as many weights as MiniLM-L6: three matrices of 1,024 for two of 1,536."""
_SQUARE = 1024


@dataclass(frozen=True)
class Speed:
    """Tokens a second of batches of 8 rows of 128 tokens on one core."""

    encoder: float
    minilm: float
    """The architecture at MiniLM-L6's width, depth and feed-forward."""
    minilm_plain: float
    """At its number of weights."""
    int8_limit: float
    """The best rate of int8 products that was measured, in 1e9 multiply-adds a second."""
    float_limit: float
    """The same for the attention's products in fp32."""
    share: float
    """The time that the encoder's products take at those rates, of the time that it takes."""


def measure(folder: Path, work: Path) -> Speed:
    """Measure a folder with `config.json` and `model.onnx`; graphs to compare with are written to `work`.

    Raises:
        ModelFolderError: its configuration is not that of an encoder.
    """
    shape = shape_of(folder)
    work.mkdir(parents=True, exist_ok=True)
    outputs = {"encoder": ["token_embeddings"]}
    paths = {"encoder": folder / "model.onnx"}
    for name, numbers in (("minilm", MINILM), ("minilm_plain", MINILM_PLAIN)):
        paths[name] = work / f"{name}-{shape.vocabulary}.onnx"
        if not paths[name].exists():
            write_random(Shape(vocabulary=shape.vocabulary, context=shape.context, **numbers), paths[name])
    runs = {name: _encoding(path, outputs.get(name), shape.vocabulary) for name, path in paths.items()}
    products = _int8_products(shape)
    runs |= {f"int8 {k}x{n}": _multiplying(m, k, n) for m, k, n in products}
    runs |= {"float scores": _attending(shape, transposed=True), "float values": _attending(shape, transposed=False)}
    seconds = in_turns(runs, TURNS)
    rates = {f"int8 {k}x{n}": m * k * n / seconds[f"int8 {k}x{n}"] for m, k, n in products}
    int8_limit = max(rates.values())
    attention = ROWS * TOKENS * TOKENS * shape.width
    float_limit = max(attention / seconds["float scores"], attention / seconds["float values"])
    least = int8_operations(shape) / int8_limit + 2 * shape.layers * attention / float_limit
    tokens = ROWS * TOKENS
    return Speed(
        encoder=tokens / seconds["encoder"],
        minilm=tokens / seconds["minilm"],
        minilm_plain=tokens / seconds["minilm_plain"],
        int8_limit=int8_limit / 1e9,
        float_limit=float_limit / 1e9,
        share=least / seconds["encoder"],
    )


def shape_of(folder: Path) -> Shape:
    """The network of a folder, from the Hugging Face keys of its configuration."""
    config: Mapping[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    try:
        return Shape(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            feed_forward=config["intermediate_size"],
            context=config["max_position_embeddings"],
        )
    except KeyError as error:
        raise ModelFolderError(f"{folder / 'config.json'} does not say what network it is: no {error}") from error


def int8_operations(shape: Shape) -> int:
    """Multiply-adds of one batch with the layers' matrices."""
    each = 4 * shape.width**2 + 3 * shape.width * shape.feed_forward
    return ROWS * TOKENS * shape.layers * each


def in_turns(runs: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """The median processor time of each, in seconds; every turn runs all of them once, after one run to warm up."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            began = time.thread_time()
            run()
            taken[name].append(time.thread_time() - began)
    return {name: median(times) for name, times in taken.items()}


def write_random(shape: Shape, target: Path) -> None:
    """The encoder's graph with random weights, quantized as the shipped one is."""
    import onnx

    from penstock_tuning.encoder.graph import encoder_graph
    from penstock_tuning.encoder.quantize import quantize

    plain = target.with_suffix(".fp32.onnx")
    onnx.save(encoder_graph(random_weights(shape), shape, int8_embeddings=True), plain)
    quantize(plain, target)
    plain.unlink()


def random_weights(shape: Shape) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Weights by the names that the graph reads."""
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (random.standard_normal((rows, columns)) * 0.02).astype(np.float32)

    width, wide = shape.width, shape.feed_forward
    weights = {
        "model.embeddings.tok_embeddings.weight": matrix(shape.vocabulary, width),
        "model.embeddings.norm.weight": np.ones(width, np.float32),
        "model.final_norm.weight": np.ones(width, np.float32),
    }
    for layer in range(shape.layers):
        own = f"model.layers.{layer}"
        weights |= {
            f"{own}.attn_norm.weight": np.ones(width, np.float32),
            f"{own}.attn.Wqkv.weight": matrix(3 * width, width),
            f"{own}.attn.Wo.weight": matrix(width, width),
            f"{own}.mlp_norm.weight": np.ones(width, np.float32),
            f"{own}.mlp.Wi.weight": matrix(2 * wide, width),
            f"{own}.mlp.Wo.weight": matrix(width, wide),
        }
    return weights


def _session(model: Path | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def _encoding(path: Path, outputs: list[str] | None, vocabulary: int) -> Callable[[], object]:
    import onnxruntime

    session = _session(path)
    # As the services run it: what other heads need is left out of a pass.
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    there = [output.name for output in session.get_outputs()]
    wanted = [name for name in outputs or there if name in there] or there[:1]
    ids = np.random.default_rng(1).integers(5, vocabulary, (ROWS, TOKENS))
    feeds = {"input_ids": ids.astype(np.int64), "attention_mask": np.ones((ROWS, TOKENS), np.int64)}
    return lambda: session.run(wanted, feeds, options)


def _int8_products(shape: Shape) -> list[tuple[int, int, int]]:
    """Sizes of the products that are tried: those of the encoder, and a large square one."""
    rows, width, wide = ROWS * TOKENS, shape.width, shape.feed_forward
    sizes = [(rows, width, 3 * width), (rows, width, width), (rows, width, 2 * wide), (rows, wide, width)]
    return [*sizes, (_SQUARE, _SQUARE, _SQUARE)]


def _multiplying(rows: int, inner: int, columns: int) -> Callable[[], object]:
    """One product of int8 matrices as ONNX Runtime does it, the right one constant."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(2)
    right = random.integers(-64, 64, (inner, columns)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right", "zero"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(right, "right"), numpy_helper.from_array(np.array(128, np.uint8), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = _session(model.SerializeToString())
    left = random.integers(0, 255, (rows, inner)).astype(np.uint8)
    return lambda: session.run(None, {"left": left})


def _attending(shape: Shape, *, transposed: bool) -> Callable[[], object]:
    """The products of attention for one layer: queries with keys, or shares with values."""
    from onnx import TensorProto, helper

    size = shape.head_size
    left = (ROWS, shape.heads, TOKENS, size if transposed else TOKENS)
    right = (ROWS, shape.heads, size if transposed else TOKENS, TOKENS if transposed else size)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("left", left), ("right", right))],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [*left[:3], right[3]])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = _session(model.SerializeToString())
    random = np.random.default_rng(3)
    feeds = {
        name: random.standard_normal(sizes).astype(np.float32) for name, sizes in (("left", left), ("right", right))
    }
    return lambda: session.run(None, feeds)
