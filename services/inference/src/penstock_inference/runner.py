"""The ONNX session and its pool of key/value cache rows.

The pool is one array, for each layer `cache_tokens` keys and as many values, seen as rows of equal length:
[layers, 2, rows, kv_heads, row_length, head_size]. A contiguous range of its rows is bound, without a copy, as
both past and present of a pass, so attention updates the cache in place. What the builder's graph asks for
(GroupQueryAttention): the mask carries each row's length only and rows are padded on the right; a stretch of a
prompt runs as one row of its own, one-token passes run in any number of rows; old content behind a row's length
does not matter.

It chooses no tokens and knows no requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from penstock.contracts.errors import ConfigurationError
from penstock.models.projections import projections
from penstock_inference.adapted_graph import adapted, rows_of
from penstock_inference.adapter_slots import AdapterSlots, Inputs
from penstock_inference.engine import Logits
from penstock_inference.head import POSITIONS
from penstock_inference.layout import ModelLayout
from penstock_inference.prefixes import Block
from penstock_inference.session import Provider, open_session

_TENSOR_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a backend may use.

    Most rows, tokens in a row (None: the model's own) and in a step; threads, and microseconds that they wait awake;
    MiB of tensors, and of prefixes kept besides; seconds that running rows may wait for the prompts of others; what
    runs the passes; adapters in memory, and their most rank.
    """

    rows: int = 8
    context: int | None = None
    threads: int = 1
    spin_us: int = 100
    memory_mib: int = 1024
    step_tokens: int = 512
    stall_s: float = 0.2
    prefix_mib: int = 64
    provider: Provider = "cpu"
    adapters: int = 4
    adapter_rank: int = 64


class OnnxRunner:
    """Implements `engine.Runner`. Raises ConfigurationError where the graph or the limits do not fit."""

    def __init__(self, layout: ModelLayout, limits: Limits) -> None:
        self._layout = layout
        self.rows = limits.rows
        self.context_length = min(layout.context_length, limits.context or layout.context_length)
        self.graph = layout.graph
        self.adapters: AdapterSlots | None = None
        """Once `adapt` was called."""
        self._open = partial(open_session, layout, limits.threads, limits.provider, spin_us=limits.spin_us)
        self._session = self._open()
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
        self._chooses = POSITIONS in inputs
        self._last_only = self._chooses or shape[1] == 1
        self._token_shape = (layout.kv_heads, layout.head_size)
        longest = min(limits.step_tokens, self.context_length)
        # float16 logits are widened once more before sampling
        logits_item = np.dtype(self._logits_type).itemsize + (4 if self._logits_type is np.float16 else 0)
        positions = self.rows if self._last_only else max(longest, self.rows)
        logits = positions * self.vocabulary_size * logits_item
        token = layout.layers * 2 * layout.kv_heads * layout.head_size * np.dtype(cache_type).itemsize
        self.cache_tokens = min(((limits.memory_mib << 20) - logits) // token, self.rows * self.context_length)
        if self.cache_tokens < self.context_length:
            needed = ((logits + token * self.context_length) >> 20) + 1
            raise ConfigurationError(
                f"PENSTOCK_INFERENCE_MEMORY_MIB: {limits.memory_mib} MiB are too few for one row of "
                f"{self.context_length} tokens and the logits of {longest}, which need {needed}; raise it, or lower "
                "PENSTOCK_INFERENCE_CONTEXT or PENSTOCK_INFERENCE_STEP_TOKENS"
            )
        self.memory_bytes = logits + token * self.cache_tokens
        # touched, so that its memory is there from the start and not missing later
        self._pool = np.full((layout.layers, 2, self.cache_tokens * layout.kv_heads * layout.head_size), 0, cache_type)
        self._bindings: dict[tuple[int, int], tuple[Any, list[Any], dict[str, Inputs]]] = {}
        self._cache = self._cut(self.context_length)

    def adapt(self, slots: int) -> AdapterSlots:
        """Open the graph anew, with inputs for adapters, and go on with it; raises ConfigurationError.

        Until then the model runs as it was exported: who has no adapters pays nothing for them.
        """
        if self._cache.dtype != np.float32:
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: {self.graph} computes in {self._cache.dtype}; adapters need float32: export the "
                "model for the CPU as int4, int8 or fp32"
            )
        layers = projections(self.graph)
        self._session = self._open(lambda graph: adapted(graph, layers))
        self._bindings.clear()
        self.adapters = AdapterSlots(layers, slots)
        return self.adapters

    def arrange(self, row_length: int, kept: Sequence[int]) -> None:
        """Cut the pool into rows of `row_length` tokens, keeping the first `kept[i]` tokens of row i."""
        old, new = self._cache, self._cut(row_length)
        order = range(len(kept))
        # row by row through a copy, from that end at which the new rows cover no old one that is still to come
        for row in reversed(order) if row_length > old.shape[4] else order:
            new[:, :, row, :, : kept[row]] = old[:, :, row, :, : kept[row]].copy()
        self._cache = new
        self._bindings.clear()

    def prefill(self, row: int, start: int, ids: Sequence[int], *, last: bool = True) -> Logits:
        """Add a stretch of a prompt to a row that holds `start` tokens.

        The logits of its last token, [1, vocabulary]; where it is not the `last` stretch of its prompt, none.
        """
        chosen = (len(ids) - 1,) if last else ()
        logits = self._run(row, np.asarray(ids)[None], [start + len(ids)], chosen)
        return logits[0, -1:] if last else logits[0, :0]

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        """One token more for rows 0..n-1; logits of shape [n, vocabulary]."""
        return self._run(0, np.asarray(ids)[:, None], [length + 1 for length in lengths], (0,))[:, 0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cached tokens of one row to another."""
        self._cache[:, :, target, :, :length] = self._cache[:, :, source, :, :length]

    def read(self, row: int, start: int, stop: int) -> Block:
        """A copy of a row's cached tokens start..stop-1: [layers, 2, kv_heads, tokens, head_size]."""
        return self._cache[:, :, row, :, start:stop].copy()

    def write(self, row: int, start: int, block: Block) -> None:
        """Put a copied block into a row."""
        self._cache[:, :, row, :, start : start + block.shape[3]] = block

    def _cut(self, row_length: int) -> npt.NDArray[Any]:
        """The pool seen as rows of that length; what is left of it behind the last row is not used."""
        heads, size = self._token_shape
        rows = min(self.rows, self.cache_tokens // row_length)
        item = self._pool.itemsize
        return np.lib.stride_tricks.as_strided(
            self._pool,
            (*self._pool.shape[:2], rows, heads, row_length, size),
            (*self._pool.strides[:2], heads * row_length * size * item, row_length * size * item, size * item, item),
        )

    def _run(
        self, first: int, ids: npt.NDArray[np.integer[Any]], totals: Sequence[int], chosen: Sequence[int]
    ) -> Logits:
        """A pass of [n, steps] tokens over rows from `first` on, whose lengths with them are `totals`.

        Logits of shape [n, steps, vocabulary]: of the steps `chosen` alone, where the graph can choose.
        """
        rows, steps = ids.shape
        lengths = np.asarray(totals)[:, None]
        mask = np.arange(max(totals))[None] < lengths
        feeds = {
            self._layout.input_ids: ids.astype(self._id_type),
            self._layout.attention_mask: mask.astype(self._mask_type),
        }
        if self._takes_positions:
            feeds[self._layout.position_ids] = (lengths - steps + np.arange(steps)).astype(self._id_type)
        if self._chooses:
            feeds[POSITIONS] = np.asarray(chosen, np.int64)
            steps = len(chosen)
        elif self._last_only:
            steps = 1
        logits = np.empty((rows, steps, self.vocabulary_size), self._logits_type)
        binding, bound = self._binding(first, first + rows)
        if self.adapters is not None:
            for kind, lines, taken in self.adapters.feeds(rows):
                feeds[rows_of(kind)] = taken
                matrices = self.adapters.values(kind, lines)
                if bound.get(kind) is not matrices:
                    for name, matrix in matrices:
                        binding.bind_ortvalue_input(name, matrix)
                    bound[kind] = matrices
        # the values only borrow the arrays' memory: both stay referenced until the pass is over
        values = {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feed)) for name, feed in feeds.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        result = ort.OrtValue.ortvalue_from_numpy(logits)
        binding.bind_ortvalue_output(self._layout.logits, result)
        self._session.run_with_iobinding(binding)
        return logits.astype(np.float32, copy=False)

    def _binding(self, first: int, end: int) -> tuple[Any, dict[str, Inputs]]:
        """The binding of a range of rows, made once: past and present are the same memory.

        With it, the matrices of adapters that are bound to each kind of layer, which it borrows.
        """
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
            cached = self._bindings[(first, end)] = (binding, values, {})
        return cached[0], cached[2]


def _check_names(layout: ModelLayout, inputs: set[str], outputs: set[str]) -> None:
    layers = range(layout.layers)
    expected = {layout.input_ids, layout.attention_mask} | {
        pattern % layer for pattern in (layout.past_key, layout.past_value) for layer in layers
    }
    odd = sorted((inputs - {layout.position_ids, POSITIONS}) ^ expected)
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
