"""The same in float16 on a GPU, where one is at hand: the engine on a cache in its memory, beside transformers there.

The service itself runs on CPUs: the runner here shows what its engine makes of a GPU, and is no part of it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.console import Console
from tests.benchmarks.inference import making
from tests.benchmarks.inference.measuring import Work, take_turns
from tests.benchmarks.inference.peers.ours import Ours
from tests.benchmarks.inference.peers.transformers import Transformers
from tests.benchmarks.inference.report import OURS, TRANSFORMERS, beside, details, show
from tests.benchmarks.inference.seats import Seat

from penstock_inference.engine import Runner
from penstock_inference.layout import ModelLayout
from penstock_inference.prefixes import Block
from penstock_inference.runner import Limits

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


def absent(device: str = "cuda") -> str | None:
    """Why nothing can be measured on a device here; None where it can."""
    if find_spec("torch") is None:
        return "torch is not installed"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if PROVIDERS[device] not in ort.get_available_providers():
        return f"onnxruntime has no {PROVIDERS[device]}: install onnxruntime-gpu in its place"
    return None


class TorchRunner:
    """Implements `engine.Runner` on a device: the cache is a tensor there, and bound by address."""

    def __init__(self, layout: ModelLayout, limits: Limits, device: str) -> None:
        import torch

        self._torch, self._layout, self._device = torch, layout, device
        options = ort.SessionOptions()
        options.intra_op_num_threads = limits.threads
        self._session = ort.InferenceSession(str(layout.graph), options, providers=[PROVIDERS[device]])
        node = next(each for each in self._session.get_inputs() if each.name == layout.past_key % 0)
        self._type = np.float16 if node.type == "tensor(float16)" else np.float32
        self._torch_type = torch.float16 if self._type is np.float16 else torch.float32
        self.rows = limits.rows
        self.context_length = min(layout.context_length, limits.context or layout.context_length)
        self.vocabulary_size: int = self._session.get_outputs()[0].shape[-1]
        self.cache_tokens = self.rows * self.context_length
        per_layer = self.cache_tokens * layout.kv_heads * layout.head_size
        self._pool = torch.zeros((layout.layers, 2, per_layer), dtype=self._torch_type, device=device)
        self._cache = self._cut(self.context_length)

    def arrange(self, row_length: int, kept: Sequence[int]) -> None:
        """Cut the pool into rows of `row_length` tokens, keeping the first `kept[i]` tokens of row i."""
        old, new = self._cache, self._cut(row_length)
        copies = [old[:, :, row, :, :length].clone() for row, length in enumerate(kept)]
        for row, copy in enumerate(copies):
            new[:, :, row, :, : copy.shape[3]] = copy
        self._cache = new

    def prefill(self, row: int, start: int, ids: Sequence[int], *, last: bool = True) -> npt.NDArray[np.float32]:
        """Add a stretch of a prompt to a row that holds `start` tokens; the last one's logits, [1, vocabulary]."""
        return self._run(row, row + 1, np.asarray(ids)[None], [start + len(ids)])

    def decode(self, ids: Sequence[int], lengths: Sequence[int]) -> npt.NDArray[np.float32]:
        """One token more for rows 0..n-1; logits of shape [n, vocabulary]."""
        return self._run(0, len(ids), np.asarray(ids)[:, None], [length + 1 for length in lengths])

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` cached tokens of one row to another."""
        self._cache[:, :, target, :, :length] = self._cache[:, :, source, :, :length].clone()

    def read(self, row: int, start: int, stop: int) -> Block:
        """A copy of a row's cached tokens start..stop-1."""
        copy: Block = self._cache[:, :, row, :, start:stop].cpu().numpy()
        return copy

    def write(self, row: int, start: int, block: Block) -> None:
        """Put a copied block into a row."""
        given = self._torch.from_numpy(np.ascontiguousarray(block)).to(self._device)
        self._cache[:, :, row, :, start : start + given.shape[3]] = given

    def _cut(self, row_length: int) -> Any:
        heads, size = self._layout.kv_heads, self._layout.head_size
        rows = min(self.rows, self.cache_tokens // row_length)
        used = self._pool[:, :, : rows * heads * row_length * size]
        return used.unflatten(2, (rows, heads, row_length, size))

    def _run(self, first: int, end: int, ids: npt.NDArray[Any], totals: Sequence[int]) -> npt.NDArray[np.float32]:
        """A pass over rows first..end-1; the logits of each one's last token, [n, vocabulary]."""
        layout, binding = self._layout, self._session.io_binding()
        mask = np.arange(max(totals))[None] < np.asarray(totals)[:, None]
        binding.bind_cpu_input(layout.input_ids, ids.astype(np.int64))
        binding.bind_cpu_input(layout.attention_mask, mask.astype(np.int64))
        for layer in range(layout.layers):
            for which, (past, present) in enumerate(
                ((layout.past_key, layout.present_key), (layout.past_value, layout.present_value))
            ):
                rows = self._cache[layer, which, first:end]
                where = (self._device, 0, self._type, tuple(rows.shape), rows.data_ptr())
                binding.bind_input(past % layer, *where)
                binding.bind_output(present % layer, *where)
        steps = 1 if self._session.get_outputs()[0].shape[1] == 1 else ids.shape[1]
        logits = self._torch.empty((len(ids), steps, self.vocabulary_size), dtype=self._torch_type, device=self._device)
        binding.bind_output(layout.logits, self._device, 0, self._type, tuple(logits.shape), logits.data_ptr())
        if self._device == "cuda":
            self._torch.cuda.synchronize()  # the session has a stream of its own
        self._session.run_with_iobinding(binding)
        last: npt.NDArray[np.float32] = logits[:, -1].float().cpu().numpy()
        return last


class OursOnGpu(Ours):
    """The engine, its passes on the GPU."""

    def runner(self, folder: Path, limits: Limits) -> Runner:
        """What passes run on."""
        return TorchRunner(ModelLayout.read(folder), limits, "cuda")


def measure(console: Console, work: Work, threads: int) -> dict[str, Any]:
    """The workload of the CPU, float16, beside transformers' static batches. Call it where `absent` is None."""
    subprocess.run([sys.executable, "-m", "tests.benchmarks.inference.making", "--gpu"], check=True)
    base = making.folder()
    with (
        Seat(OursOnGpu, base / "fp16-cuda", work.rows, threads) as ours,
        Seat(Transformers, base / "hf", work.rows, threads, "cuda") as other,
    ):
        measured, rate = take_turns({OURS: ours, TRANSFORMERS: other}, work, TRANSFORMERS, console.print)
    show("Qwen2.5-0.5B, float16, GPU", measured, console)
    ratios = beside(measured[OURS], measured[TRANSFORMERS])
    return ratios | {"poisson_per_s": round(rate, 3)} | {name: details(each) for name, each in measured.items()}
