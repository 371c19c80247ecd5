"""`build`: the one function that training calls. Reads, cleans, weighs, augments and caches as JSON lines.

A folder of the cache is named for the digest of all that its files depend on: the sources, the seed, the augmentation
and the code of this package. The same arguments give the same bytes, on every machine.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from penstock_tuning.data.augment.phrases import SOURCE as GENERATED_PHRASES
from penstock_tuning.data.augment.phrases import generate as generate_phrases
from penstock_tuning.data.augment.plan import TASKS as AUGMENTED_TASKS
from penstock_tuning.data.augment.plan import augmented, tools
from penstock_tuning.data.balance import weighted
from penstock_tuning.data.cleaning import Cleaned, clean
from penstock_tuning.data.errors import DataError
from penstock_tuning.data.example import RESOURCE, SPLITS, TASKS, Example, read_examples, write_examples
from penstock_tuning.data.loading import load_source
from penstock_tuning.data.manifest import Manifest, load
from penstock_tuning.data.people.generate import SOURCE as GENERATED_NAMES
from penstock_tuning.data.people.generate import generate as generate_names
from penstock_tuning.data.similar import Sequences, words

CACHE = Path("build/penstock-data")
_NO_PART = ("manifest.yaml", "cli.py", "report")
"""Entries of the package that no example depends on; of the manifest the sources count one by one."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """A file of examples and where it comes from."""

    path: Path
    """JSON lines, one `Example` each, shuffled."""
    card: Mapping[str, Any]
    """Digest, counts by source, and what cleaning removed."""

    def __iter__(self) -> Iterator[Example]:
        return read_examples(self.path)

    def __len__(self) -> int:
        return int(self.card["examples"])


def build(
    task: str,
    split: str,
    seed: int,
    augment: bool = False,
    *,
    root: Path,
    cache: Path = CACHE,
    manifest: Manifest | None = None,
    progress: Progress = lambda _: None,
) -> Built:
    """The examples of a task on one side of the split, from the cache or made now.

    Args:
        task: `safety`, `pii`, `entailment`, `similarity` or `text` (passages for pretraining, without labels).
        split: `train`, `validation` or `test`: whole sources each.
        seed: of every draw: caps, generated text, augmentation, order.
        augment: adds augmented copies to `train` of `safety`, `pii` and `entailment`; no other split is changed.
        root: the data folder (`PENSTOCK_DATA`).
        cache: where the files are kept; a folder of it can be deleted at any time.
        manifest: another manifest than the one of the package.
        progress: is told in a sentence what is being done.

    Raises:
        SourceMissingError: files of a source are not below `root`.
        DataError: there is no such task or split.
    """
    if task not in TASKS or split not in SPLITS:
        raise DataError(f"no split {split!r} of a task {task!r}: tasks are {TASKS}, splits {SPLITS}")
    if augment and (split != "train" or task not in AUGMENTED_TASKS):
        raise DataError(f"augmented are {AUGMENTED_TASKS}, and of these train only; not {task} {split}")
    manifest = manifest or load()
    folder = cache / f"{task}-{digest(task, seed, augment, manifest)[:16]}"
    if not (folder / "card.json").exists():
        _make(folder, task, seed, augment, root=root, manifest=manifest, progress=progress)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    return Built(folder / f"{split}.jsonl", {**card, "examples": card["splits"][split]})


def digest(task: str, seed: int, augment: bool, manifest: Manifest) -> str:
    """Of everything that the files depend on; what is held out for any task is part of it."""
    parts = [task, str(seed), str(augment), code_digest()]
    for name in sorted(manifest.sources):
        source = manifest.sources[name]
        if task in source.tasks or source.split != "train" or RESOURCE in source.tasks:
            parts.append(source.model_dump_json())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def code_digest() -> str:
    """Of the modules and tables that the examples depend on."""
    total = hashlib.sha256()
    stack = [resources.files("penstock_tuning.data")]
    found = []
    while stack:
        for entry in stack.pop().iterdir():
            if entry.name in _NO_PART:
                continue
            if entry.is_dir():
                stack.append(entry)
            elif entry.name.endswith((".py", ".yaml")):
                found.append(entry)
    for entry in sorted(found, key=str):
        total.update(entry.name.encode() + entry.read_bytes())
    return total.hexdigest()


def cleaned(
    task: str,
    seed: int,
    root: Path,
    manifest: Manifest,
    progress: Progress,
    *,
    known: Mapping[str, Sequences] | None = None,
) -> Cleaned:
    """All splits of a task after cleaning, with the counts of what went; `known` is `held_out`'s, made where absent."""
    loaded: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for source in manifest.of(task):
        loaded[source.split] += load_source(source, task, root, seed)
    progress(f"{task}: {sum(map(len, loaded.values()))} rows read")
    result = clean(loaded, known or held_out(seed, root, manifest))
    if any(RESOURCE in source.tasks for source in manifest.sources.values()):
        _add_generated(task, result, seed, root, manifest)
    return result


def _add_generated(task: str, result: Cleaned, seed: int, root: Path, manifest: Manifest) -> None:
    """Add generated text to every split, after cleaning: texts of one template resemble each other on purpose."""
    if task == "pii":
        _add_names(result, seed, root, manifest)
    if task == "safety":
        for split in SPLITS:
            made = list(generate_phrases(split, seed))
            result.counts[GENERATED_PHRASES]["kept"] += len(made)
            result.splits[split] += made


def _add_names(result: Cleaned, seed: int, root: Path, manifest: Manifest) -> None:
    """Add text with names; held-out splits keep no name that a training text has marked."""
    result.splits["train"] += generate_names("train", seed, manifest, root)
    known = {word for example in result.splits["train"] for word in _name_words(example)}
    for split in SPLITS[1:]:
        result.splits[split] += generate_names(split, seed, manifest, root, known)
    made = (example for rows in result.splits.values() for example in rows if example.source == GENERATED_NAMES)
    result.counts[GENERATED_NAMES]["kept"] = sum(1 for _ in made)


def _name_words(example: Example) -> Iterator[str]:
    for span in example.spans:
        if span.label == "PERSON":
            yield from (word for word in words(example.text[span.start : span.end]) if len(word) > 2)


def held_out(seed: int, root: Path, manifest: Manifest) -> dict[str, Sequences]:
    """Word sequences of the held-out sources of every task: what `train` and what `validation` must not share."""
    texts: dict[str, list[str]] = {"validation": [], "test": []}
    for split, own in texts.items():
        for task in TASKS:
            for source in manifest.of(task, split):
                for example in load_source(source, task, root, seed):
                    own.extend([example.text] if example.pair is None else [example.text, example.pair])
    return {"train": Sequences(texts["validation"] + texts["test"]), "validation": Sequences(texts["test"])}


def _make(
    folder: Path, task: str, seed: int, augment: bool, *, root: Path, manifest: Manifest, progress: Progress
) -> None:
    result = cleaned(task, seed, root, manifest, progress)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    counts: dict[str, int] = {}
    by_source: dict[str, dict[str, int]] = {}
    made: Counter[str] = Counter()
    for split in SPLITS:
        rows = result.splits[split]
        if augment and split == "train":
            rows = [*rows, *augmented(task, rows, tools(manifest, root), seed)]
            made = Counter(example.augmented for example in rows if example.augmented)
        examples = weighted(rows)
        random.Random(f"{seed}:{task}:{split}").shuffle(examples)
        counts[split] = write_examples(examples, part / f"{split}.jsonl")
        by_source[split] = dict(sorted(Counter(example.source for example in examples).items()))
        progress(f"{task}: {counts[split]} examples in {split}")
    card = {
        "task": task,
        "seed": seed,
        "augment": augment,
        "digest": digest(task, seed, augment, manifest),
        "splits": counts,
        "sources": by_source,
        "augmented": dict(sorted(made.items())),
        "removed": {name: dict(sorted(row.items())) for name, row in sorted(result.counts.items())},
        "data": {source.name: source.digest for source in manifest.of(task)},
    }
    (part / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
