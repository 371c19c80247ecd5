"""The adapters that are in memory, each in a slot, and what a pass over rows with and without them is fed.

The matrices of a layer are one array for all slots, so that those of neighbouring slots are bound without a copy:
`a` [slots * stride, inputs], `b` [slots * stride, outputs], already scaled. It reads no files.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from penstock.models.projections import Projection
from penstock_inference.adapted_graph import a_of, b_of

Matrix = npt.NDArray[np.float32]
Inputs = list[tuple[str, Any]]
"""Names of a session's inputs, and their values."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """What an adapter adds to a layer, scaled: `x @ a.T @ b`; `a` [k, inputs], `b` [k, outputs]."""

    layer: int
    """Its number among the projections."""
    a: Matrix
    b: Matrix


@dataclass(slots=True)
class _Slot:
    number: int
    adapter: str | None = None
    lines: dict[str, int] = field(default_factory=dict)
    """Kind of layer -> lines of `a` and `b` that it uses."""
    used: int = 0


@dataclass(slots=True)
class _Kind:
    """All layers of a kind: their numbers, and their arrays, which have `stride` lines for each slot."""

    layers: list[int]
    stride: int = 0
    a: dict[int, Matrix] = field(default_factory=dict)
    b: dict[int, Matrix] = field(default_factory=dict)
    values: dict[tuple[int, int], Inputs] = field(default_factory=dict)
    """Lines first..end-1 of all layers, as the session takes them."""


class AdapterSlots:
    """At most `slots` adapters, named as the caller likes. Used by one thread."""

    def __init__(self, layers: Sequence[Projection], slots: int) -> None:
        self._layers = layers
        self._slots = [_Slot(number) for number in range(slots)]
        self._kinds = {
            kind: _Kind([number for number, layer in enumerate(layers) if layer.kind == kind])
            for kind in sorted({layer.kind for layer in layers})
        }
        self._ticks = itertools.count(1)
        self._rows: Sequence[str | None] = ()

    def resident(self, adapter: str) -> bool:
        """Whether an adapter is in a slot."""
        return self._slot(adapter) is not None

    def room(self, running: Collection[str | None]) -> bool:
        """Whether a slot is free, or has an adapter that no running row uses."""
        return any(slot.adapter is None or slot.adapter not in running for slot in self._slots)

    def put(self, adapter: str, changes: Sequence[LayerChange], running: Collection[str | None]) -> None:
        """Take an adapter in, in place of the one used least recently; those of running rows stay."""
        slot = min(
            (each for each in self._slots if each.adapter is None or each.adapter not in running),
            key=lambda each: (each.adapter is not None, each.used),
        )
        slot.adapter, slot.lines = None, {}
        by_layer = {change.layer: change for change in changes}
        for kind, held in self._kinds.items():
            lines = max((len(by_layer[number].a) for number in held.layers if number in by_layer), default=0)
            if lines > held.stride:
                self._widen(held, lines)
            if lines:
                slot.lines[kind] = lines
            for number in held.layers if held.stride else ():
                for array, given in ((held.a[number], "a"), (held.b[number], "b")):
                    place = array[slot.number * held.stride :][: held.stride]
                    place[:] = 0
                    if number in by_layer:
                        change = getattr(by_layer[number], given)
                        place[: len(change)] = change
        slot.adapter, slot.used = adapter, next(self._ticks)

    def use(self, rows: Sequence[str | None]) -> None:
        """Say which adapter each row of the next passes has, all of them resident; nothing where none has one."""
        self._rows = rows
        for adapter in set(rows) - {None}:
            slot = self._slot(adapter)
            if slot is None:
                raise KeyError("a row's adapter is in no slot")
            slot.used = next(self._ticks)

    def feeds(self, rows: int) -> Iterator[tuple[str, tuple[int, int], Matrix]]:
        """For each kind of layer: the lines that the pass needs, and which of its rows take which of them."""
        chosen = [self._slot(adapter) for adapter in self._rows] or [None] * rows
        for kind, held in self._kinds.items():
            slots = [slot if slot is not None and kind in slot.lines else None for slot in chosen]
            there = [slot for slot in slots if slot is not None]
            first = min((slot.number for slot in there), default=0) * held.stride
            end = max((slot.number * held.stride + slot.lines[kind] for slot in there), default=0)
            mask = np.zeros((rows, 1, end - first), np.float32)
            for row, slot in enumerate(slots):
                if slot is not None:
                    start = slot.number * held.stride - first
                    mask[row, 0, start : start + slot.lines[kind]] = 1
            yield kind, (first, end), mask

    def values(self, kind: str, lines: tuple[int, int]) -> Inputs:
        """The inputs of all layers of a kind for a range of lines, which borrow the arrays' memory.

        The same list until these arrays are replaced.
        """
        held = self._kinds[kind]
        if lines not in held.values:
            first, end = lines
            held.values[lines] = [
                (name, ort.OrtValue.ortvalue_from_numpy(array))
                for number in held.layers
                for name, array in (
                    (a_of(number), self._lines(held.a, number, first, end, self._layers[number].inputs)),
                    (b_of(number), self._lines(held.b, number, first, end, self._layers[number].outputs)),
                )
            ]
        return held.values[lines]

    def _lines(self, arrays: dict[int, Matrix], number: int, first: int, end: int, width: int) -> Matrix:
        return arrays[number][first:end] if number in arrays else np.zeros((0, width), np.float32)

    def _slot(self, adapter: str | None) -> _Slot | None:
        if adapter is None:
            return None
        return next((slot for slot in self._slots if slot.adapter == adapter), None)

    def _widen(self, held: _Kind, stride: int) -> None:
        """Give each slot more lines; what the slots hold stays theirs."""
        for number in held.layers:
            layer = self._layers[number]
            for arrays, width in ((held.a, layer.inputs), (held.b, layer.outputs)):
                wider = np.zeros((len(self._slots), stride, width), np.float32)
                if held.stride:
                    wider[:, : held.stride] = arrays[number].reshape(len(self._slots), held.stride, width)
                arrays[number] = wider.reshape(len(self._slots) * stride, width)
        held.stride = stride
        held.values.clear()
