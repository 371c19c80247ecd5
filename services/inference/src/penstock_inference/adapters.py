"""Adapters of the model that a backend runs: found in the registry, checked, read into slots when a row needs them.

What the slots hold and how a pass is fed is `adapter_slots`' work.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import structlog

from penstock.contracts.errors import ConfigurationError, StageError
from penstock.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Change, LoraConfig, changes
from penstock.models.entries import Entry, check
from penstock.models.errors import ModelError
from penstock.models.registry import Registry
from penstock.models.safetensors import Tensor
from penstock_inference.adapter_slots import AdapterSlots, LayerChange, Matrix
from penstock_inference.runner import OnnxRunner

_log = structlog.get_logger()

_DTYPES: Final[dict[str, type[np.generic]]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class Adapters:
    """Implements `engine.Adapters` for one model and its runner. Used by one thread."""

    def __init__(self, registry: Registry, answers: str, runner: OnnxRunner, *, slots: int, rank: int) -> None:
        """`answers` is the digest of the model; at most `slots` adapters, of at most `rank`, are in memory."""
        self._registry = registry
        self._answers = answers
        self._runner = runner
        self._slots = slots
        self._rank = rank
        self._found: dict[str, Entry] = {}

    def find(self, reference: str) -> None:
        """Look for an adapter, NAME@REVISION; raises StageError where it cannot be used with this model."""
        if reference in self._found:
            return
        try:
            entry = self._registry.find(reference)
        except ModelError:
            there = sorted(self._registry.adapters(self._answers)) or ["none"]
            raise StageError(
                f"the adapter {reference} is not in the registry any more; there are: {', '.join(there)}",
                code="unknown_adapter",
                field="model",
                limit=", ".join(there),
            ) from None
        facts = entry.manifest.adapter
        if facts is None or facts.base_answers != self._answers:
            raise StageError(
                f"{reference} is no adapter of the model that serves; add it for that one, or promote its own",
                code="adapter_of_another_model",
                field="model",
            )
        if facts.rank > self._rank:
            raise StageError(
                f"the adapter {reference} is of rank {facts.rank}, PENSTOCK_INFERENCE_ADAPTER_RANK allows {self._rank}",
                code="adapter_too_large",
                field="model",
                limit=self._rank,
            )
        self._found[reference] = entry

    def admit(self, adapter: str | None, running: Collection[str | None]) -> bool:
        """Have an adapter in memory for a row beside those that run; False where all slots are theirs.

        Raises StageError where it or its files are not what was added, or the model's graph can have none.
        """
        if adapter is None:
            return True
        slots = self._runner.adapters or self._adapt()
        if slots.resident(adapter):
            return True
        if not slots.room(running):
            return False
        self.find(adapter)
        entry = self._found[adapter]
        try:
            check(entry)
            made = list(read(entry.folder, self._runner.graph))
        except (ModelError, OSError, ValueError) as error:
            del self._found[adapter]
            raise StageError(
                f"the adapter {adapter} cannot be loaded ({type(error).__name__}); `penstock models verify` says why",
                code="adapter_damaged",
                field="model",
            ) from error
        slots.put(adapter, made, running)
        _log.info("inference.adapter.loaded", adapter=adapter, digest=entry.manifest.answers)
        return True

    def _adapt(self) -> AdapterSlots:
        try:
            return self._runner.adapt(self._slots)
        except ConfigurationError as error:
            raise StageError(error.message, code="adapter_unsupported", field="model") from error

    def use(self, adapters: Sequence[str | None]) -> None:
        """Say which adapter each row of the next pass has."""
        if self._runner.adapters is not None:
            self._runner.adapters.use(adapters)


def read(folder: Path, graph: Path) -> Iterator[LayerChange]:
    """An adapter's files as what they add to each layer of a graph; raises ModelError, OSError, ValueError."""
    config = LoraConfig.read(folder / ADAPTER_CONFIG)
    by_layer: dict[int, list[Change]] = {}
    for change in changes(folder, config, graph):
        by_layer.setdefault(change.number, []).append(change)
    with (folder / ADAPTER_WEIGHTS).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number, parts in sorted(by_layer.items()):
            layer = parts[0].projection
            lines = config.rank * len(parts)
            a = np.zeros((lines, layer.inputs), np.float32)
            b = np.zeros((lines, layer.outputs), np.float32)
            for place, part in enumerate(parts):
                ours = slice(place * config.rank, (place + 1) * config.rank)
                a[ours] = _tensor(content, part.a)
                b[ours, slice(*part.columns)] = _tensor(content, part.b).T * np.float32(config.scale)
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise ValueError("a matrix holds what is no finite number")
            yield LayerChange(number, a, b)


def _tensor(content: Any, tensor: Tensor) -> Matrix:
    count = (tensor.stop - tensor.start) // np.dtype(_DTYPES[tensor.dtype]).itemsize
    # copied, so that no view outlives the mapping
    values: npt.NDArray[Any] = (
        np.frombuffer(content, _DTYPES[tensor.dtype], count, tensor.start).reshape(tensor.shape).copy()
    )
    if tensor.dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
