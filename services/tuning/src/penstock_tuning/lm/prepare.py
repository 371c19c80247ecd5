"""From public sets and the generator to a tokenizer and token arrays: the first stage of a run.

Text is one stream of uint16, each passage after its start token, in the data package's seeded order. Conversations are
rows of whole ones, with a mark for every token: 0 for padding, 1 for what is read, 2 for what an assistant says.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock_tuning.data import manifest as manifests
from penstock_tuning.data.build import build
from penstock_tuning.data.example import Example
from penstock_tuning.data.manifest import Manifest, Source
from penstock_tuning.data.similar import Sequences, shingles, words
from penstock_tuning.encoder.errors import RunMismatchError
from penstock_tuning.encoder.prepare import sample
from penstock_tuning.lm.config import LmConfig, Text
from penstock_tuning.lm.conversations import Conversation, conversations
from penstock_tuning.lm.corpus import is_held_out
from penstock_tuning.lm.generator import samples
from penstock_tuning.lm.held_out import carriers_of, held_out_texts, sets_of
from penstock_tuning.lm.runtime import load_tokenizer
from penstock_tuning.lm.tokenizer import Turn, encode_conversation, save_tokenizer, special_id, train_tokenizer

CARD = "prepared.json"
_TOGETHER = 1000
_COMMON = 5
_UNFILLED = 16
_GENERATED_FOR_THE_TOKENIZER = 10_000
# What decides the conversations beside the sets themselves.
_CODE = ("conversations", "facts", "generator", "json_tasks", "phrases", "requests")

Progress = Callable[[str], None]
Tokens = NDArray[np.uint16]
Marks = NDArray[np.uint8]
READ, ANSWERED = 1, 2


@dataclass(frozen=True)
class Rows:
    """Conversations in rows, `[rows, length + 1]`."""

    tokens: Tokens
    marks: Marks


@dataclass(frozen=True)
class Prepared:
    """What training reads. Arrays are mapped from their files."""

    tokenizer: Tokenizer
    text: Tokens
    """The stream."""
    conversations: Rows
    generated: Rows
    held_out_text: Tokens
    """`[rows, length + 1]`, the beginnings of texts of sources that no training reads."""
    held_out_conversations: Rows
    card: dict[str, Any]
    """Digests, and tokens by kind."""


def text_sources(manifest: Manifest, wanted: Text) -> list[Source]:
    """The sources whose text is read.

    Raises:
        RunMismatchError: one that is to be left out does not exist.
    """
    found = list(manifest.of("text", "train"))
    if unknown := {*wanted.without} - {one.name for one in found} or {*wanted.without_kinds} - {
        one.kind for one in found
    }:
        raise RunMismatchError(f"the manifest has no text of {', '.join(sorted(unknown))} to leave out")
    return [one for one in found if one.name not in wanted.without and one.kind not in wanted.without_kinds]


def prepare(config: LmConfig, work: Path, root: Path, cache: Path, progress: Progress) -> Prepared:
    """The arrays of a work folder, made where they are not there yet.

    Raises:
        RunMismatchError: the folder holds those of another configuration or of other data.
        SourceMissingError: files of a set are not below `root`.
    """
    began = time.monotonic()
    manifest = manifests.load()
    train = build("text", "train", config.seed, root=root, cache=cache, progress=progress)
    held_out = build("text", "validation", config.seed, root=root, cache=cache, progress=progress)
    with sets_of(root):
        talks = [one for one in conversations(root) if manifest.sources[one.source].split == "train"]
    talking = {one.source for one in talks}
    key = {"configuration": config.digest(), "data": _digest(manifest, talking, str(train.card["digest"]))}
    if (work / CARD).exists():
        if json.loads((work / CARD).read_text("utf-8"))["key"] != key:
            raise RunMismatchError(
                f"{work} holds a run of another configuration or of other data: give another --work, or delete it"
            )
        return load_prepared(work)
    reads = {one.name for one in text_sources(manifest, config.text)}
    card = make(
        config,
        work,
        texts=(one for one in train if one.source in reads),
        held_out_texts=held_out,
        talks=talks,
        measured=held_out_texts(root, work),
        progress=progress,
    )
    names = sorted(reads | talking)
    card |= {"key": key, "sources": {name: manifest.sources[name].digest for name in names}}
    write_card(work, card | {"seconds": round(time.monotonic() - began, 1)})
    return load_prepared(work)


def _digest(manifest: Manifest, talking: Iterable[str], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name in sorted(talking):
        total.update(manifest.sources[name].digest.encode())
    for name in _CODE:
        total.update((resources.files("penstock_tuning.lm") / f"{name}.py").read_bytes())
    return total.hexdigest()[:16]


def write_card(work: Path, card: dict[str, Any]) -> None:
    """Say that everything is made: the last file of a preparation."""
    partial = work / f"{CARD}.partial"
    partial.write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    partial.replace(work / CARD)


def load_prepared(work: Path) -> Prepared:
    """What `make` wrote."""

    def array(name: str) -> Any:
        return np.load(work / f"{name}.npy", mmap_mode="r")

    def rows(name: str) -> Rows:
        return Rows(array(name), array(f"{name}_marks"))

    return Prepared(
        tokenizer=load_tokenizer(work / "tokenizer"),
        text=array("text"),
        conversations=rows("conversations"),
        generated=rows("generated"),
        held_out_text=array("held_out_text"),
        held_out_conversations=rows("held_out_conversations"),
        card=json.loads((work / CARD).read_text("utf-8")),
    )


def make(
    config: LmConfig,
    work: Path,
    *,
    texts: Iterable[Example],
    held_out_texts: Iterable[Example],
    talks: Sequence[Conversation],
    measured: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Train the tokenizer and write the arrays; the counts of what there is.

    Args:
        config: the recipe.
        work: the folder.
        texts: passages to train on.
        held_out_texts: passages of other sources, to watch the loss on.
        talks: conversations; those whose key is held out are only watched.
        measured: `held_out_texts` of `lm.held_out`; text that shares eight words in a row with it is left out.
        progress: is told in a sentence what is being done.

    Raises:
        RunMismatchError: the texts are too few for the vocabulary or for one row.
    """
    work.mkdir(parents=True, exist_ok=True)
    spoken = [_spoken(one["turns"]) for one in measured["conversations"]]
    known = Sequences([*(one["text"] for one in measured["documents"]), *spoken])
    read = list(texts)
    kept = [one for one in read if not known.share(words(one.text))]
    own = [one for one in talks if not is_held_out(one.key)]
    copied = copies([_spoken(one.turns) for one in own], spoken)
    learned = [one for one, copy in zip(own, copied, strict=True) if not copy]
    carriers = carriers_of(learned)
    made = [one.turns for one in samples(config.seed, "train", config.generated, carriers)]
    progress(f"tokenizer: trained on {config.tokenizer_megabytes:g} MB of text at most, and on conversations")
    tokenizer = train_tokenizer(
        chain(
            sample(kept, int(config.tokenizer_megabytes * 1e6)),
            (_spoken(one.turns) for one in learned),
            map(_spoken, made[:_GENERATED_FOR_THE_TOKENIZER]),
        ),
        config.shape.vocabulary,
    )
    if tokenizer.get_vocab_size() != config.shape.vocabulary:
        raise RunMismatchError(
            f"the text gives {tokenizer.get_vocab_size()} tokens, the configuration asks for {config.shape.vocabulary}"
        )
    save_tokenizer(tokenizer, work / "tokenizer", config.shape.context)
    counts: Counter[str] = Counter()
    stream = _stream(tokenizer, kept, counts)
    np.save(work / "text.npy", stream)
    beginnings = _beginnings(tokenizer, held_out_texts, config)
    np.save(work / "held_out_text.npy", beginnings)
    watched = [one.turns for one in talks if is_held_out(one.key)]
    card: dict[str, Any] = {
        "text": {
            "texts": len(kept),
            "left_out": len(read) - len(kept),
            "tokens": len(stream),
            "by": dict(sorted(counts.items())),
        }
    }
    progress(f"text: {len(stream)} tokens")
    together = {"conversations": [one.turns for one in learned], "generated": made}
    for name, turns in (together | {"held_out_conversations": watched}).items():
        rows = pack(tokenizer, turns, config.length + 1, config.seed)
        np.save(work / f"{name}.npy", rows.tokens)
        np.save(work / f"{name}_marks.npy", rows.marks)
        tokens, answered = int((rows.marks > 0).sum()), int((rows.marks == ANSWERED).sum())
        card[name] = {"conversations": len(turns), "rows": len(rows.tokens), "tokens": tokens, "answered": answered}
        progress(f"{name}: {tokens} tokens in {len(rows.tokens)} rows")
    card["conversations"]["left_out"] = len(own) - len(learned)
    return card


def _spoken(turns: Iterable[Sequence[str]]) -> str:
    return "\n".join(text for _, text in turns)


def copies(texts: Sequence[str], held_out: Sequence[str]) -> list[bool]:
    """Whether each text shares eight words in a row with a held-out one.

    A run that five of the texts have is a phrase of a template or of small talk, and shows no copy.
    """
    none = np.zeros(0, np.uint64)
    runs = [shingles(words(text), Sequences.SIZE) for text in texts]
    values, counts = np.unique(np.concatenate([none, *runs]), return_counts=True)
    wanted = np.unique(np.concatenate([none, *(shingles(words(text), Sequences.SIZE) for text in held_out)]))
    shared = np.isin(values, wanted) & (counts < _COMMON)
    return [bool(shared[np.searchsorted(values, mine)].any()) for mine in runs]


def _stream(tokenizer: Tokenizer, texts: Iterable[Example], counts: Counter[str]) -> Tokens:
    start = np.array([special_id(tokenizer, "<|bos|>")], np.uint16)
    parts = [np.zeros(0, np.uint16)]
    examples = iter(texts)
    while chunk := list(islice(examples, _TOGETHER)):
        encoded = tokenizer.encode_batch_fast([one.text for one in chunk], add_special_tokens=False)
        for example, one in zip(chunk, encoded, strict=True):
            parts += [start, np.asarray(one.ids, np.uint16)]
            counts[f"{example.language} {example.source}"] += 1 + len(one.ids)
    return np.concatenate(parts)


def _beginnings(tokenizer: Tokenizer, texts: Iterable[Example], config: LmConfig) -> Tokens:
    """The first `length + 1` tokens of texts that have as many, one source after the other."""
    length = config.length + 1
    by_source: dict[str, list[list[int]]] = {}
    start = special_id(tokenizer, "<|bos|>")
    for one in texts:
        ids = [start, *tokenizer.encode(one.text, add_special_tokens=False).ids]
        if len(ids) >= length:
            by_source.setdefault(one.source, []).append(ids[:length])
    # A round takes one of each source, so that the first rows are of all of them.
    rounds = [
        rows[at]
        for at in range(max(map(len, by_source.values()), default=0))
        for _, rows in sorted(by_source.items())
        if at < len(rows)
    ]
    if not rounds:
        raise RunMismatchError(f"no held-out text has {length} tokens: lower `length`")
    return np.array(rounds[: config.validation_rows], np.uint16)


def pack(tokenizer: Tokenizer, talks: Iterable[Sequence[Turn]], length: int, seed: int) -> Rows:
    """Put whole conversations, in a seeded order, into rows of `length`, each where least is left over; longer ones are
    cut.
    """
    given = list(talks)
    random.Random(seed).shuffle(given)
    rows: list[tuple[list[int], list[int]]] = []
    unfilled: list[tuple[list[int], list[int]]] = []
    for turns in given:
        ids, learn = encode_conversation(tokenizer, turns)
        ids, marks = ids[:length], [ANSWERED if keep else READ for keep in learn[:length]]
        fitting = [row for row in unfilled if len(row[0]) + len(ids) <= length]
        if not fitting:
            fitting = [([], [])]
            rows += fitting
            unfilled = [*unfilled[-_UNFILLED:], *fitting]
        row = max(fitting, key=lambda one: len(one[0]))
        row[0].extend(ids)
        row[1].extend(marks)
    tokens = np.zeros((len(rows), length), np.uint16)
    marked = np.zeros((len(rows), length), np.uint8)
    for n, (ids, marks) in enumerate(rows):
        tokens[n, : len(ids)] = ids
        marked[n, : len(marks)] = marks
    return Rows(tokens, marked)
