"""The ONNX session and its pool of key/value cache rows.

The pool is one array [layers, 2, rows, kv_heads, context, head_size]. A contiguous range of its rows
is bound, without a copy, as both past and present of a pass, so attention updates the cache in place.
What the builder's graph asks for (GroupQueryAttention): the mask carries each row's length only and
rows are padded on the right; a prompt runs as one row of its own, one-token passes run in any number
of rows; old content behind a row's length does not matter.

It chooses no tokens and knows no requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from penstock.contracts.errors import ConfigurationError
from penstock_inference.engine import Logits
from penstock_inference.layout import ModelLayout

_TENSOR_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a runner may use: rows, tokens in a row (None: the model's own), threads, MiB of tensors."""

    rows: int = 8
    context: int | None = None
    threads: int = 1
    memory_mib: int = 1024


class OnnxRunner:
    """Implements `engine.Runner`. Raises ConfigurationError where the graph or the limits do not fit."""

    def __init__(self, layout: ModelLayout, limits: Limits) -> None:
        self._layout = layout
        self.rows = limits.rows
        self.context_length = min(layout.context_length, limits.context or layout.context_length)
        self._session = _open(layout, limits.threads)
        inputs = {node.name: node for node in self._session.get_inputs()}
        outputs = {node.name: node for node in self._session.get_outputs()}
        _check_names(layout, set(inputs), set(outputs))
        self._takes_positions = layout.position_ids in inputs
        self._id_type = _dtype(layout, inputs[layout.input_ids])
        self._mask_type = _dtype(layout, inputs[layout.attention_mask])
        cache_type = _dtype(layout, inputs[layout.past_key % 0])
        self._logits_type = _dtype(layout, outputs[layout.logits])
        shape = outputs[layout.logits].shape
        if not isinstance(shape[-1], int):
            raise ConfigurationError(f"PENSTOCK_MODEL_DIR: {layout.graph} does not say the size of its vocabulary")
        self.vocabulary_size: int = shape[-1]
        self._last_only = shape[1] == 1
        pool = (layout.layers, 2, self.rows, layout.kv_heads, self.context_length, layout.head_size)
        self.memory_bytes = _planned_bytes(pool, cache_type, self.vocabulary_size, self._logits_type, self._last_only)
        if self.memory_bytes > limits.memory_mib << 20:
            raise ConfigurationError(
                f"PENSTOCK_INFERENCE_MEMORY_MIB: {limits.memory_mib} MiB are too few for {self.rows} rows of "
                f"{self.context_length} tokens, which need {(self.memory_bytes >> 20) + 1}; raise it, or lower "
                "PENSTOCK_INFERENCE_ROWS or PENSTOCK_INFERENCE_CONTEXT"
            )
        self._cache = np.zeros(pool, cache_type)
        self._bindings: dict[tuple[int, int], tuple[Any, list[Any]]] = {}

    def prefill(self, row: int, ids: Sequence[int]) -> Logits:
        """Start a row with a whole prompt; the last token's logits, shape [1, vocabulary]."""
        positions = np.arange(len(ids))[None]
        logits = self._run(row, row + 1, np.asarray(ids)[None], [len(ids)], positions)
        return logits[:, -1]

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One token more for rows 0..n-1; logits of shape [n, vocabulary]."""
        positions = np.asarray(lengths)[:, None]
        logits = self._run(0, len(ids), np.asarray(ids)[:, None], [length + 1 for length in lengths], positions)
        return logits[:, 0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cached tokens of one row to another."""
        self._cache[:, :, target, :, :length] = self._cache[:, :, source, :, :length]

    def _run(
        self,
        first: int,
        end: int,
        ids: npt.NDArray[np.integer[Any]],
        totals: Sequence[int],
        positions: npt.NDArray[np.integer[Any]],
    ) -> Logits:
        """A pass over rows first..end-1, whose lengths with the new tokens are `totals`: [n, steps, vocabulary]."""
        rows, steps = ids.shape
        mask = np.arange(max(totals))[None] < np.asarray(totals)[:, None]
        feeds = {
            self._layout.input_ids: ids.astype(self._id_type),
            self._layout.attention_mask: mask.astype(self._mask_type),
        }
        if self._takes_positions:
            feeds[self._layout.position_ids] = positions.astype(self._id_type)
        logits = np.empty((rows, 1 if self._last_only else steps, self.vocabulary_size), self._logits_type)
        binding = self._binding(first, end)
        # the values only borrow the arrays' memory: both stay referenced until the pass is over
        values = {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feed)) for name, feed in feeds.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        result = ort.OrtValue.ortvalue_from_numpy(logits)
        binding.bind_ortvalue_output(self._layout.logits, result)
        self._session.run_with_iobinding(binding)
        return logits.astype(np.float32, copy=False)

    def _binding(self, first: int, end: int) -> Any:
        """The binding of a range of rows, made once: past and present are the same memory."""
        cached = self._bindings.get((first, end))
        if cached is None:
            binding = self._session.io_binding()
            values = []
            for layer in range(self._layout.layers):
                names = (
                    (self._layout.past_key % layer, self._layout.present_key % layer),
                    (self._layout.past_value % layer, self._layout.present_value % layer),
                )
                for which, (past, present) in enumerate(names):
                    value = ort.OrtValue.ortvalue_from_numpy(self._cache[layer, which, first:end])
                    binding.bind_ortvalue_input(past, value)
                    binding.bind_ortvalue_output(present, value)
                    values.append(value)
            cached = self._bindings[(first, end)] = (binding, values)
        return cached[0]


def _open(layout: ModelLayout, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads that spin while they wait take the cores from the other services
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(layout.graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors share no base below Exception
        raise ConfigurationError(
            f"PENSTOCK_MODEL_DIR: ONNX Runtime cannot open {layout.graph} ({type(error).__name__})"
        ) from error


def _check_names(layout: ModelLayout, inputs: set[str], outputs: set[str]) -> None:
    layers = range(layout.layers)
    expected = {layout.input_ids, layout.attention_mask} | {
        pattern % layer for pattern in (layout.past_key, layout.past_value) for layer in layers
    }
    odd = sorted((inputs - {layout.position_ids}) ^ expected)
    if odd:
        raise ConfigurationError(
            f"PENSTOCK_MODEL_DIR: the inputs of {layout.graph} are not those this release feeds; "
            f"{len(odd)} differ, the first is {odd[0]}"
        )
    missing = {layout.logits} | {
        pattern % layer for pattern in (layout.present_key, layout.present_value) for layer in layers
    }
    if missing := missing - outputs:
        raise ConfigurationError(f"PENSTOCK_MODEL_DIR: {layout.graph} has no output {min(missing)}")


def _dtype(layout: ModelLayout, node: Any) -> type[np.generic]:
    dtype = _TENSOR_TYPES.get(node.type)
    if dtype is None:
        raise ConfigurationError(f"PENSTOCK_MODEL_DIR: {node.name} of {layout.graph} is a {node.type}, not supported")
    return dtype


def _planned_bytes(
    pool: tuple[int, ...],
    cache_type: type[np.generic],
    vocabulary: int,
    logits_type: type[np.generic],
    last_only: bool,
) -> int:
    """The cache pool, and the logits of the longest prompt."""
    context = pool[4]
    cache = int(np.prod(pool, dtype=np.int64)) * np.dtype(cache_type).itemsize
    # float16 logits are widened once more before sampling
    logits_item = np.dtype(logits_type).itemsize + (4 if logits_type is np.float16 else 0)
    return cache + (1 if last_only else context) * vocabulary * logits_item
