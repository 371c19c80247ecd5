"""Which texts a step reads. Batch N depends on the seed and N alone, so a cut run repeats an uncut one.

A step has texts of one task, packed into rows: they follow each other and do not see each other. Tasks take turns by
their share of the tokens. How often a text is read in an epoch follows its weight to the power `source_balance`; the
rest of the weight counts in its loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.encoder.tokenizer import MASK, PAD, SPECIAL
from penstock_tuning.heads.config import TASKS, HeadsConfig, Task
from penstock_tuning.heads.prepare import Rows

Ints = NDArray[np.int64]
_MASK, _PAD = SPECIAL.index(MASK), SPECIAL.index(PAD)


@dataclass(frozen=True)
class Batch:
    """Texts of one task, packed into rows."""

    task: Task
    ids: Ints
    """`[rows, length]`."""
    segments: Ints
    """`[rows, length]`: 1 for the first text's tokens, 2 for the second's; 0 is padding."""
    tokens: Ints
    """`[rows, length]`: classes or bits, as `encode.Window` has them."""
    labels: NDArray[np.int8]
    """`[texts, labels]`."""
    known: Ints
    """`[texts]`."""
    groups: Ints
    """`[texts]`."""
    weights: NDArray[np.float32]
    """`[texts]`: what each counts in the loss."""


class Batches:
    """The batches of a run."""

    def __init__(self, train: Mapping[Task, Rows], config: HeadsConfig) -> None:
        """Plan all steps; raises ValueError where a task has no texts."""
        self._train = train
        self._config = config
        self._turns = turns({task: config.shares[task] for task in config.tasks}, config.steps)
        self._chosen = {
            task: _plan(train[task], task, sum(turn == task for turn in self._turns), config) for task in config.tasks
        }
        self._before = [self._turns[:step].count(task) for step, task in enumerate(self._turns)]

    def at(self, step: int) -> Batch:
        """The batch of a step."""
        task = self._turns[step]
        chosen = self._chosen[task][self._before[step]]
        batch = pack(task, self._train[task], chosen, self._config)
        rng = np.random.default_rng((self._config.seed, 1, step))
        hidden = (rng.random(batch.ids.shape) < self._config.losses.masked) & (batch.ids >= len(SPECIAL))
        batch.ids[hidden] = _MASK
        return batch


def fixed(task: Task, rows: Rows, config: HeadsConfig) -> Iterator[Batch]:
    """`validation_rows` texts of a task, evenly from all that there are and as they are, to measure a loss on."""
    atoms = _atoms(task, len(rows.weights))
    count = min(len(atoms), config.validation_rows)
    even = np.linspace(0, len(atoms) - 1, count).round().astype(np.int64)
    for chosen in _fill(atoms[even], rows.lengths, config):
        yield pack(task, rows, chosen, config)


def turns(shares: Mapping[Task, float], steps: int) -> list[Task]:
    """The task of each step: as many of each as its share asks for, spread evenly."""
    total = sum(shares.values())
    taken = dict.fromkeys(shares, 0)
    order: list[Task] = []
    for step in range(1, steps + 1):
        task = max(shares, key=lambda name: shares[name] / total * step - taken[name])
        taken[task] += 1
        order.append(task)
    return order


def placed(lengths: Sequence[int], rows: int, width: int) -> list[tuple[int, int]]:
    """Row and first place of each text: the first row with room. Shorter where the next one does not fit."""
    used = [0] * rows
    places: list[tuple[int, int]] = []
    for length in lengths:
        if (place := _put(used, length, width)) is None:
            break
        places.append(place)
    return places


def pack(task: Task, rows: Rows, chosen: Ints, config: HeadsConfig) -> Batch:
    """The batch of the chosen rows, which fit."""
    shape = (config.rows, config.windows.tokens)
    ids, segments, tokens = np.full(shape, _PAD, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    places = placed(rows.lengths[chosen].tolist(), *shape)
    for number, (one, (row, first)) in enumerate(zip(chosen.tolist(), places, strict=True), 1):
        begin, end = rows.begins[one : one + 2].tolist()
        place = slice(first, first + end - begin)
        ids[row, place], segments[row, place], tokens[row, place] = rows.ids[begin:end], number, rows.tokens[begin:end]
    weights = rows.weights[chosen] ** (1 - config.source_balance)
    known, groups = rows.known[chosen].astype(np.int64), rows.groups[chosen]
    return Batch(task, ids, segments, tokens, rows.labels[chosen], known, groups, weights.astype(np.float32))


def _plan(rows: Rows, task: Task, steps: int, config: HeadsConfig) -> list[Ints]:
    """The rows of each of the task's steps; what is left at the end of an epoch does not fill one and is not read."""
    if not len(rows.weights):
        raise ValueError(f"there is nothing to train {task} on")
    made: list[Ints] = []
    epoch = 0
    while len(made) < steps:
        rng = np.random.default_rng((config.seed, 0, TASKS.index(task), epoch))
        epoch += 1
        batches = list(_fill(_epoch(task, rows, rng, config), rows.lengths, config))
        made += batches[:-1] or batches
    return made[:steps]


def _epoch(task: Task, rows: Rows, rng: np.random.Generator, config: HeadsConfig) -> Ints:
    """`[texts or pairs, 1 or 2]`: row numbers in a drawn order, each as often as its weight wants it."""
    atoms = _atoms(task, len(rows.weights))
    wanted = rows.weights[atoms[:, 0]].astype(np.float64) ** config.source_balance
    wanted /= wanted.mean()
    copies = np.floor(wanted + rng.random(len(wanted))).astype(np.int64)
    return rng.permutation(np.repeat(atoms, copies, axis=0))


def _atoms(task: Task, count: int) -> Ints:
    numbers = np.arange(count, dtype=np.int64)
    return numbers[: count // 2 * 2].reshape(-1, 2) if task == "similarity" else numbers[:, None]


def _fill(atoms: Ints, lengths: Ints, config: HeadsConfig) -> Iterator[Ints]:
    """Row numbers of one batch after the other: as many texts as fit, in the order given."""
    width = config.windows.tokens
    used = [0] * config.rows
    batch: list[int] = []
    for atom in atoms.tolist():
        trial = list(used)
        if any(_put(trial, int(lengths[one]), width) is None for one in atom):
            yield np.array(batch, np.int64)
            batch, trial = [], [0] * config.rows
            for one in atom:
                _put(trial, int(lengths[one]), width)
        used = trial
        batch += atom
    if batch:
        yield np.array(batch, np.int64)


def _put(used: list[int], length: int, width: int) -> tuple[int, int] | None:
    """Give a text the first row with room; where it begins."""
    for row, taken in enumerate(used):
        if taken + length <= width:
            used[row] += length
            return row, taken
    return None
