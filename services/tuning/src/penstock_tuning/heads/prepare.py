"""From the public sets to arrays in the work folder, and the texts kept apart to calibrate on.

Kept apart are whole sources: those of the validation split, and those of the training side that the configuration
names. The test sources are not read here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from penstock.heads.windows import framed, pair_windows
from penstock_tuning.data.augment.plan import TASKS as AUGMENTED
from penstock_tuning.data.build import build
from penstock_tuning.data.example import LABELS, Example, read_examples, write_examples
from penstock_tuning.encoder.errors import RunMismatchError
from penstock_tuning.heads.config import HeadsConfig, Task
from penstock_tuning.heads.encode import UNKNOWN, Window, closest, pii_windows, safety_windows
from penstock_tuning.heads.ingredients import belongs

CARD = "prepared.json"
_TOGETHER = 1000
_SINGLE = ("safety", "pii")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Rows:
    """The windows of a task, one after the other. A sentence pair is two of them: 2n and 2n + 1."""

    ids: NDArray[np.uint16]
    """`[tokens]`."""
    begins: NDArray[np.int64]
    """`[rows + 1]`: row n is `ids[begins[n]:begins[n + 1]]`."""
    labels: NDArray[np.int8]
    """`[rows, labels of the task]`: 0, 1 or -1, unknown."""
    tokens: NDArray[np.int32]
    """`[tokens]`: classes or bits, as `encode.Window` has them."""
    known: NDArray[np.int32]
    """`[rows]`: bits of the labels that `tokens` knows."""
    groups: NDArray[np.int64]
    """`[rows]`: rows of one group are no negatives of each other."""
    weights: NDArray[np.float32]
    """`[rows]`: a text's weight, divided over its windows."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`[rows]`: tokens of each."""
        return np.diff(self.begins)

    def save(self, path: Path) -> None:
        """Write them as one file."""
        np.savez(path, **vars(self))  # type: ignore[arg-type,unused-ignore]  # its own annotation wants a bool

    @classmethod
    def load(cls, path: Path) -> Rows:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(**{name: stored[name] for name in stored.files})


@dataclass(frozen=True)
class Prepared:
    """What the run reads."""

    train: dict[Task, Rows]
    held_out: dict[Task, Rows]
    """Of the sources kept apart."""
    texts: dict[Task, list[Example]]
    """The same as texts."""
    card: dict[str, Any]
    """Digests, rows and tokens by task, sources kept apart."""


def prepare(
    config: HeadsConfig,
    tokenizer: Tokenizer,
    encoder: str,
    work: Path,
    *,
    root: Path,
    cache: Path,
    progress: Progress = lambda _: None,
) -> Prepared:
    """The arrays of a work folder, made where they are not there yet.

    Args:
        config: the recipe.
        tokenizer: of the encoder.
        encoder: the digest of what the run begins from.
        work: the folder.
        root: the data folder.
        cache: where built data is kept.
        progress: is told in a sentence what is being done.

    Raises:
        RunMismatchError: the folder holds those of another configuration, encoder or other data.
        SourceMissingError: files of a source are not below `root`.
    """
    began = time.monotonic()
    built = {
        task: build(task, "train", config.seed, task in AUGMENTED, root=root, cache=cache, progress=progress)
        for task in config.tasks
    }
    data = {task: train.card["digest"] for task, train in built.items()}
    key = {"configuration": config.digest(), "encoder": encoder, "data": data}
    if (work / CARD).exists():
        card = json.loads((work / CARD).read_text("utf-8"))
        if card["key"] != key:
            raise RunMismatchError(
                f"{work} holds a run of another configuration, encoder or data: give another --work, or delete it"
            )
    else:
        work.mkdir(parents=True, exist_ok=True)
        card = {"key": key, "sources": {}, "tasks": {}}
        for task, train in built.items():
            # The folder of a build has the other splits too; augmentation does not change them.
            validation = read_examples(train.path.with_name("validation.jsonl"))
            card["tasks"][task] = make_rows(config, tokenizer, work, task, train=iter(train), validation=validation)
            card["sources"] |= train.card["data"]
            progress(f"{task}: {card['tasks'][task]['rows']} windows of {card['tasks'][task]['tokens']} tokens")
        card["seconds"] = round(time.monotonic() - began, 1)
        partial = work / f"{CARD}.partial"
        partial.write_text(json.dumps(card, indent=1) + "\n", "utf-8")
        partial.replace(work / CARD)
    return load_prepared(config, work, card)


def load_prepared(config: HeadsConfig, work: Path, card: dict[str, Any]) -> Prepared:
    """What `make_rows` left in the work folder."""
    return Prepared(
        {task: Rows.load(work / f"{task}-train.npz") for task in config.tasks},
        {task: Rows.load(work / f"{task}-held-out.npz") for task in config.tasks},
        {task: list(read_examples(work / f"{task}-held-out.jsonl")) for task in config.tasks},
        card,
    )


def make_rows(
    config: HeadsConfig,
    tokenizer: Tokenizer,
    work: Path,
    task: Task,
    *,
    train: Iterator[Example],
    validation: Iterator[Example],
) -> dict[str, Any]:
    """Write the arrays of one task; how many rows, tokens and texts kept apart there are."""
    kept: list[Example] = []
    held_out = _capped(chain(_apart(train, task, config, kept), validation), config.calibration.rows)
    texts = list(held_out)
    rows = rows_of(task, kept, tokenizer, config)
    rows.save(work / f"{task}-train.npz")
    rows_of(task, texts, tokenizer, config).save(work / f"{task}-held-out.npz")
    write_examples(texts, work / f"{task}-held-out.jsonl")
    return {
        "texts": len(kept),
        "rows": len(rows.weights),
        "tokens": len(rows.ids),
        "held_out": dict(sorted(Counter(example.source for example in texts).items())),
    }


def _apart(examples: Iterator[Example], task: Task, config: HeadsConfig, kept: list[Example]) -> Iterator[Example]:
    """What is of a source kept apart, without what augmentation made of it; the rest goes to `kept`.

    What the configuration is to do without is left out of training alone.
    """
    names = set(config.calibration.sources)
    for example in examples:
        if example.source not in names:
            if belongs(example, task, config.without):
                kept.append(example)
        elif not example.augmented:
            yield example


def _capped(examples: Iterator[Example], most: int) -> Iterator[Example]:
    """At most so many of each source, the first in the builder's seeded order."""
    seen: Counter[str] = Counter()
    for example in examples:
        seen[example.source] += 1
        if seen[example.source] <= most:
            yield example


def rows_of(task: Task, examples: list[Example], tokenizer: Tokenizer, config: HeadsConfig) -> Rows:
    """The windows of the texts of a task."""
    windows: list[Window] = []
    weights: list[float] = []
    groups: list[int] = []
    for example, found in zip(examples, _windows(task, examples, tokenizer, config), strict=True):
        windows += found
        weights += [example.weight / max(1, len(found) if task in _SINGLE else 1)] * len(found)
        groups += [_group(example)] * len(found)
    count = len(LABELS[task])
    return Rows(
        np.array([token for one in windows for token in one.ids], np.uint16),
        np.cumsum([0, *(len(one.ids) for one in windows)], dtype=np.int64),
        np.array([one.labels or (UNKNOWN,) * count for one in windows], np.int8).reshape(-1, count),
        np.array([code for one in windows for code in one.tokens or [0] * len(one.ids)], np.int32),
        np.array([one.known for one in windows], np.int32),
        np.array(groups, np.int64),
        np.array(weights, np.float32),
    )


def _windows(task: Task, examples: list[Example], tokenizer: Tokenizer, config: HeadsConfig) -> Iterator[list[Window]]:
    size, overlap = config.windows.tokens, config.windows.overlap
    remaining = iter(examples)
    while chunk := list(islice(remaining, _TOGETHER)):
        texts = tokenizer.encode_batch([example.text for example in chunk], add_special_tokens=False)
        if task in _SINGLE:
            cut = safety_windows if task == "safety" else pii_windows
            for example, encoded in zip(chunk, texts, strict=True):
                yield _some(list(cut(example, encoded, size, overlap)), config, example)
            continue
        pairs = tokenizer.encode_batch([example.pair or "" for example in chunk], add_special_tokens=False)
        for example, one, other in zip(chunk, texts, pairs, strict=True):
            yield _pair(task, example, one, other, config)


def _pair(task: Task, example: Example, one: Encoding, other: Encoding, config: HeadsConfig) -> list[Window]:
    size = config.windows.tokens
    value = example.labels.get(LABELS[task][0], UNKNOWN)
    if task == "similarity":
        return [Window(framed(encoded.ids[: size - 2]), (value,)) for encoded in (one, other)]
    windows = pair_windows(one.ids, other.ids, size, config.windows.overlap)
    return [Window(closest(windows, one.ids[: size // 2 - 2]), (value,))]


def _some(windows: list[Window], config: HeadsConfig, example: Example) -> list[Window]:
    """Of many windows those with something positive, then others by chance."""
    if len(windows) <= config.windows.most:
        return windows
    draw = Random(f"{config.seed}:{example.source}:{example.text}")
    ranked = sorted(windows, key=lambda one: (1 not in one.labels and not any(one.tokens), draw.random()))
    return ranked[: config.windows.most]


def _group(example: Example) -> int:
    """Pairs of one document, or of one query and the same intent, belong together; -1: to nothing."""
    key = example.template or example.document.partition(":")[0]
    if not key:
        return -1
    return int.from_bytes(hashlib.sha256(f"{example.source}\n{key}".encode()).digest()[:7])
