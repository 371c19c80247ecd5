"""Turns the public sets and the generator into token arrays: the `prepare` step.

Writes into the work folder: tokenizer files, `pretrain.npy` (rows of length + 1), `tune.npy` and `polish.npy` with
their masks, and `held_out.json` (texts and conversations kept for evaluation). Training itself is `train`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import structlog
from tokenizers import Tokenizer

from penstock_tuning.lm.config import LmConfig
from penstock_tuning.lm.conversations import Conversation, conversations
from penstock_tuning.lm.corpus import Document, documents, held_out, is_held_out
from penstock_tuning.lm.generator import Sample, samples
from penstock_tuning.lm.tokenizer import encode_conversation, save_tokenizer, special_id, train_tokenizer

_log = structlog.get_logger()
_MAX_CARRIER_WORDS = 24


def carriers_of(talks: Sequence[Conversation]) -> list[str]:
    """Short user turns of the public conversations, to put placeholders into."""
    found = []
    for talk in talks:
        for role, text in talk.turns:
            line = text.split("\n")[0]
            if role == "user" and 3 <= len(line.split()) <= _MAX_CARRIER_WORDS and "<" not in line:
                found.append(line)
    return found


def _training_texts(docs: Sequence[Document], talks: Sequence[Conversation], made: Sequence[Sample]) -> Iterator[str]:
    for document in docs:
        yield document.text
    for talk in talks:
        yield "\n".join(text for _, text in talk.turns)
    for sample in made:
        yield "\n".join(text for _, text in sample.turns)


def _pieces(tokenizer: Tokenizer, docs: Sequence[Document], length: int) -> Iterator[list[int]]:
    bos = special_id(tokenizer, "<|bos|>")
    for document in docs:
        ids: list[int] = [bos, *tokenizer.encode(document.text, add_special_tokens=False).ids]
        for start in range(0, len(ids), length):
            yield ids[start : start + length]


def _rows(pieces: list[list[int]], length: int, seed: int) -> np.ndarray:
    """Shuffle the pieces, join them and cut rows of `length`."""
    random.Random(seed).shuffle(pieces)
    flat = np.fromiter((token for piece in pieces for token in piece), dtype=np.uint16)
    return flat[: len(flat) // length * length].reshape(-1, length)


def pack(encoded: Sequence[tuple[list[int], list[bool]]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Put whole conversations into rows of `length`; padding (id 0) is never learned."""
    rows: list[list[int]] = [[]]
    masks: list[list[bool]] = [[]]
    for whole, whole_mask in encoded:
        ids, learn = whole[:length], whole_mask[:length]
        if len(rows[-1]) + len(ids) > length:
            rows.append([])
            masks.append([])
        rows[-1] += ids
        masks[-1] += learn
    tokens = np.zeros((len(rows), length), dtype=np.uint16)
    learned = np.zeros((len(rows), length), dtype=np.bool_)
    for n, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        tokens[n, : len(row)] = row
        learned[n, : len(mask)] = mask
    return tokens, learned


def prepare(root: Path, work: Path, config: LmConfig) -> None:
    """Read, split, train the tokenizer, encode and save.

    Raises:
        OSError: a set is missing from the data folder.
    """
    docs = list(documents(root, config))
    talks = list(conversations(root))
    train_docs = [d for d in docs if not held_out(d, config)]
    train_talks = [t for t in talks if not is_held_out(t.key, config.held_out_percent)]
    kept_docs, kept_talks = save_held_out(docs, talks, work, config)
    carriers = carriers_of(train_talks)
    made = list(samples(config.seed, "train", config.pretrain_generated, carriers, "pretrain"))
    _log.info(
        "lm.prepare.read",
        documents=len(train_docs),
        conversations=len(train_talks),
        generated=len(made),
        held_out_documents=len(kept_docs),
        held_out_conversations=len(kept_talks),
    )

    tokenizer = train_tokenizer(_training_texts(train_docs, train_talks, made[:10_000]), config.vocab_size)
    save_tokenizer(tokenizer, work / "tokenizer", config.context)
    _log.info("lm.prepare.tokenizer", vocabulary=tokenizer.get_vocab_size())

    length = config.train_length + 1
    pieces = list(_pieces(tokenizer, train_docs, length))
    plain = sum(map(len, pieces))
    chats = [encode_conversation(tokenizer, talk.turns) for talk in train_talks]
    drilled = [encode_conversation(tokenizer, sample.turns) for sample in made]
    pieces += [ids for ids, _ in chats] + [ids for ids, _ in drilled]
    np.save(work / "pretrain.npy", _rows(pieces, length, config.seed))

    shares = {
        "tune": (config.tune_public_percent, config.tune_generated),
        "polish": (config.polish_public_percent, config.polish_generated),
    }
    rows = {}
    for n, (name, (percent, generated)) in enumerate(shares.items(), start=1):
        public = random.Random(config.seed).sample(chats, len(chats) * percent // 100)
        fresh = samples(config.seed + n, "train", generated, carriers)
        mixed = public + [encode_conversation(tokenizer, sample.turns) for sample in fresh]
        random.Random(config.seed).shuffle(mixed)
        tokens, learned = pack(mixed, length)
        np.save(work / f"{name}.npy", tokens)
        np.save(work / f"{name}_mask.npy", learned)
        rows[name] = len(tokens)
    _log.info(
        "lm.prepare.done",
        document_tokens=plain,
        conversation_tokens=sum(len(c[0]) for c in chats),
        generated_tokens=sum(len(d[0]) for d in drilled),
        tune_rows=rows["tune"],
        polish_rows=rows["polish"],
    )


def save_held_out(
    docs: Sequence[Document], talks: Sequence[Conversation], work: Path, config: LmConfig
) -> tuple[list[Document], list[Conversation]]:
    """Write `held_out.json`, what evaluation reads, into the work folder; what is in it."""
    work.mkdir(parents=True, exist_ok=True)
    kept_docs = [d for d in docs if held_out(d, config)]
    kept_talks = [t for t in talks if is_held_out(t.key, config.held_out_percent)]
    texts = [{"group": d.group, "language": d.language, "text": d.text} for d in kept_docs]
    turns = [{"group": t.group, "turns": t.turns} for t in kept_talks]
    kept = {"documents": texts, "conversations": turns, "carriers": list(islice(carriers_of(kept_talks), 2000))}
    (work / "held_out.json").write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    return kept_docs, kept_talks
