"""From the passages of the data builder to a tokenizer and token streams: the first stage of a run.

A stream is one array of uint16: each text between its start and separator tokens, in the builder's seeded order.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock_tuning.data.build import Built, build
from penstock_tuning.data.example import Example
from penstock_tuning.encoder.config import EncoderConfig
from penstock_tuning.encoder.errors import RunMismatchError
from penstock_tuning.encoder.tokenizer import (
    SPECIAL,
    START,
    load_tokenizer,
    save_tokenizer,
    starts_word,
    train_tokenizer,
)

CARD = "prepared.json"
_TOGETHER = 1000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What pretraining reads."""

    tokenizer: Tokenizer
    train: NDArray[np.uint16]
    """The stream, mapped from the file."""
    validation: NDArray[np.uint16]
    """Of sources that no training reads."""
    starts_word: NDArray[np.bool_]
    """`[vocabulary]`."""
    card: dict[str, Any]
    """Digests, tokens by source and language."""


def prepare(config: EncoderConfig, work: Path, root: Path, cache: Path, progress: Progress) -> Prepared:
    """The streams of a work folder, made where they are not there yet.

    Raises:
        RunMismatchError: the folder holds those of another configuration or of other data.
        SourceMissingError: files of a source are not below `root`.
    """
    began = time.monotonic()
    train = build("text", "train", config.seed, root=root, cache=cache, progress=progress)
    held_out = build("text", "validation", config.seed, root=root, cache=cache, progress=progress)
    key = {"configuration": config.digest(), "data": train.card["digest"]}
    if (work / CARD).exists():
        card = json.loads((work / CARD).read_text("utf-8"))
        if card["key"] != key:
            raise RunMismatchError(
                f"{work} holds a run of another configuration or of other data: give another --work, or delete it"
            )
    else:
        card = _make(config, work, train, held_out, progress)
        card |= {"key": key, "sources": dict(train.card["data"]), "seconds": round(time.monotonic() - began, 1)}
        partial = work / f"{CARD}.partial"
        partial.write_text(json.dumps(card, indent=1) + "\n", "utf-8")
        partial.replace(work / CARD)
    tokenizer = load_tokenizer(work / "tokenizer")
    streams = [np.load(work / f"{name}.npy", mmap_mode="r") for name in ("train", "validation")]
    return Prepared(tokenizer, streams[0], streams[1], starts_word(tokenizer), card)


def _make(config: EncoderConfig, work: Path, train: Built, held_out: Built, progress: Progress) -> dict[str, Any]:
    work.mkdir(parents=True, exist_ok=True)
    progress(f"tokenizer: trained on {config.tokenizer_megabytes:g} MB at most")
    texts = sample(train, int(config.tokenizer_megabytes * 1e6))
    tokenizer = train_tokenizer(texts, config.shape.vocabulary)
    if tokenizer.get_vocab_size() != config.shape.vocabulary:
        raise RunMismatchError(
            f"the text gives {tokenizer.get_vocab_size()} tokens, the configuration asks for {config.shape.vocabulary}"
        )
    save_tokenizer(tokenizer, work / "tokenizer", config.shape.context)
    card: dict[str, Any] = {}
    for name, built in (("train", train), ("validation", held_out)):
        counts: Counter[str] = Counter()
        stream = encode(tokenizer, built, counts)
        np.save(work / f"{name}.npy", stream)
        characters = sum(len(example.text) for example in built)
        card[name] = {
            "texts": len(built),
            "tokens": len(stream),
            "characters": characters,
            "by": dict(sorted(counts.items())),
        }
        progress(f"{name}: {len(stream)} tokens, {characters / max(1, len(stream)):.2f} characters each")
    return card


def sample(built: Iterable[Example], size: int) -> Iterator[str]:
    """Texts of `size` bytes at most, evenly over the sources: a small source is taken whole, the rest is shared.

    What is given is read twice.
    """
    sizes: Counter[str] = Counter()
    for example in built:
        sizes[example.source] += len(example.text.encode())
    left, allowed = size, {}
    for position, source in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        allowed[source] = min(sizes[source], left // (len(sizes) - position))
        left -= allowed[source]
    for example in built:
        length = len(example.text.encode())
        if length <= allowed[example.source]:
            allowed[example.source] -= length
            yield example.text


def encode(tokenizer: Tokenizer, built: Built, counts: Counter[str]) -> NDArray[np.uint16]:
    """The stream of all texts; `counts` gets the tokens of each language and source."""
    parts = []
    examples = iter(built)
    while chunk := list(islice(examples, _TOGETHER)):
        encoded = tokenizer.encode_batch_fast([example.text for example in chunk])
        for example, one in zip(chunk, encoded, strict=True):
            parts.append(np.asarray(one.ids, np.uint16))
            counts[f"{example.language} {example.source}"] += len(one.ids)
    return np.concatenate(parts) if parts else np.zeros(0, np.uint16)


def whole_rows(stream: NDArray[np.uint16], length: int, most: int) -> NDArray[np.uint16]:
    """The first `length` tokens of texts that have as many, `[rows, length]`: rows of one text each."""
    begins = np.flatnonzero(stream == SPECIAL.index(START))
    ends = np.append(begins[1:], len(stream))
    chosen = begins[ends - begins >= length][:most]
    return np.asarray(stream[chosen[:, None] + np.arange(length)])
