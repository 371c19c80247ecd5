"""Measures an exported folder: bits per byte on held-out text, and how reliably it does its few tasks.

Every figure is of the folder given (the quantized model), read by onnxruntime; with a second folder (its fp32 export)
how the two differ is measured too. Held-out means: other documents, phrases, made-up words.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from penstock_tuning.lm.generator import Sample, Split, samples
from penstock_tuning.lm.runtime import END_ID, OnnxModel, load_tokenizer, prompt_ids, text_of
from penstock_tuning.lm.tokenizer import Turn, encode_conversation, special_id

_BYTES_PER_GROUP = 40_000
_SEQUENCE_TOKENS = 512
_ANSWER_TOKENS = 96
_COMPARED_PROMPTS = 60

Scored = tuple[str, list[int], list[bool]]


def _nats(logits: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    top = logits.max(axis=-1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=-1))
    nats: np.ndarray = log_sum - logits[np.arange(len(targets)), targets]
    return nats


def held_out_sequences(kept: Mapping[str, Any], tokenizer: Tokenizer) -> Iterator[Scored]:
    """Token sequences of at most 512 tokens of the held-out texts, with their group and a mask of what counts."""
    bos = special_id(tokenizer, "<|bos|>")
    used: dict[str, int] = defaultdict(int)
    for document in kept["documents"]:
        group = f"{document['group']} ({document['language']})"
        ids: list[int] = [bos, *tokenizer.encode(document["text"][:4000], add_special_tokens=False).ids]
        ids = ids[:_SEQUENCE_TOKENS]
        if used[group] < _BYTES_PER_GROUP:
            used[group] += len(tokenizer.decode(ids).encode())
            yield group, ids, [False] + [True] * (len(ids) - 1)
    for talk in kept["conversations"]:
        group = f"answers: {talk['group']}"
        turns: list[Turn] = [(role, text) for role, text in talk["turns"]]
        ids, learn = encode_conversation(tokenizer, turns)
        if used[group] < _BYTES_PER_GROUP and len(ids) <= _SEQUENCE_TOKENS:
            used[group] += sum(len(text.encode()) for role, text in turns if role == "assistant")
            yield group, ids, learn


def bits_per_byte(
    model: OnnxModel, reference: OnnxModel | None, tokenizer: Tokenizer, sequences: Iterator[Scored]
) -> dict[str, dict[str, float]]:
    """Bits per byte and perplexity of a token by group.

    With a reference also its figure and how often both choose the same next token.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0, 0.0])
    for group, ids, mask in sequences:
        targets = ids[1:]
        counted = np.asarray(mask[1:])
        logits = model.logits(ids)[:-1]
        row = sums[group]
        row[0] += float(_nats(logits, targets)[counted].sum())
        kept = [token for token, keep in zip(targets, counted, strict=True) if keep]
        # The end token stands for no byte; its cost is part of the answer all the same.
        row[1] += len(tokenizer.decode(kept).encode())
        row[2] += len(kept)
        if reference is not None:
            other = reference.logits(ids)[:-1]
            row[3] += float(_nats(other, targets)[counted].sum())
            row[4] += float((other.argmax(-1) == logits.argmax(-1))[counted].sum())
    result = {}
    for group, (nats, size, tokens, other_nats, same) in sorted(sums.items()):
        result[group] = {
            "bits_per_byte": nats / math.log(2) / size,
            "bytes": size,
            "perplexity": math.exp(nats / tokens),
            "tokens": tokens,
        }
        if reference is not None:
            result[group]["fp32_bits_per_byte"] = other_nats / math.log(2) / size
            result[group]["same_next_token"] = same / tokens
    return result


def is_json_object(text: str) -> bool:
    """Whether a text is one JSON object and nothing else."""
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


def task_rates(model: OnnxModel, folder: Path, prompts: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """By kind of task: share that ended, quoted all placeholders, was valid JSON, was exactly the wanted answer."""
    tokenizer = load_tokenizer(folder)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for sample in prompts:
        tokens = model.greedy(prompt_ids(tokenizer, folder, sample.turns[:-1]), _ANSWER_TOKENS)
        text = text_of(tokenizer, tokens)
        for kind in (sample.kind, "all"):
            row = counts[kind]
            row["prompts"] += 1
            row["ended"] += tokens[-1] == END_ID
            row["exact"] += text == sample.turns[-1][1]
            if sample.quotes:
                row["quoting"] += 1
                row["quoted"] += all(mark in text for mark in sample.quotes)
            if sample.is_json:
                row["asked_json"] += 1
                row["valid_json"] += is_json_object(text)
    rates = {}
    for kind, row in sorted(counts.items()):
        rates[kind] = {
            "prompts": row["prompts"],
            "ended": row["ended"] / row["prompts"],
            "exact": row["exact"] / row["prompts"],
        }
        if row["quoting"]:
            rates[kind]["quoted"] = row["quoted"] / row["quoting"]
        if row["asked_json"]:
            rates[kind]["valid_json"] = row["valid_json"] / row["asked_json"]
    return rates


def _agreement(model: OnnxModel, reference: OnnxModel, folder: Path, prompts: Sequence[Sample]) -> dict[str, float]:
    """How often greedy answers of both exports are the same, whole and token by token until they part."""
    tokenizer = load_tokenizer(folder)
    same = matched = total = 0
    for sample in prompts:
        ids = prompt_ids(tokenizer, folder, sample.turns[:-1])
        left, right = model.greedy(ids, _ANSWER_TOKENS), reference.greedy(ids, _ANSWER_TOKENS)
        same += left == right
        parted = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
        matched += min(len(left), len(right)) if parted is None else parted
        total += max(len(left), len(right))
    return {"prompts": len(prompts), "same_answer": same / len(prompts), "same_tokens": matched / total}


def evaluate(
    folder: Path, kept: Mapping[str, Any], *, prompts: int, seed: int, reference: Path | None = None
) -> dict[str, Any]:
    """Measure a folder.

    Args:
        folder: the exported model.
        kept: the held-out texts.
        prompts: generated ones, for each side of the split.
        seed: of the prompts.
        reference: the fp32 export of the same weights, to measure what quantization cost.
    """
    tokenizer = load_tokenizer(folder)
    model = OnnxModel(folder)
    other = None if reference is None else OnnxModel(reference)
    splits: tuple[Split, ...] = ("held_out", "train")
    made = {split: list(islice(samples(seed + 200, split, prompts, kept["carriers"]), prompts)) for split in splits}
    result: dict[str, Any] = {
        "text": bits_per_byte(model, other, tokenizer, held_out_sequences(kept, tokenizer)),
        "tasks_held_out_phrases": task_rates(model, folder, made["held_out"]),
        "tasks_known_phrases": task_rates(model, folder, made["train"]),
    }
    if other is not None:
        result["quantized_against_fp32"] = _agreement(model, other, folder, made["held_out"][:_COMPARED_PROMPTS])
    return result


def together(groups: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The figures of `bits_per_byte` over all tokens of all groups.

    Perplexity is of a token, so it compares only models whose tokenizers cut alike; bits per byte compare all.
    """
    tokens, size = (sum(row[name] for row in groups.values()) for name in ("tokens", "bytes"))
    nats = sum(row["tokens"] * math.log(row["perplexity"]) for row in groups.values())
    found = {
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": nats / math.log(2) / size,
        "tokens": tokens,
        "bytes": size,
    }
    if all("fp32_bits_per_byte" in row for row in groups.values()):
        found["fp32_bits_per_byte"] = sum(row["fp32_bits_per_byte"] * row["bytes"] for row in groups.values()) / size
        found["same_next_token"] = sum(row["same_next_token"] * row["tokens"] for row in groups.values()) / tokens
    return found


def table(result: dict[str, Any]) -> str:
    """The figures as a table for people."""
    lines = []
    for title, figures in result.items():
        rows = {"greedy": figures} if title == "quantized_against_fp32" else figures
        columns = sorted({column for row in rows.values() for column in row})
        lines.append(f"\n{title}\n{'':28}" + "".join(f"{column:>20}" for column in columns))
        for name, row in rows.items():
            cells = (f"{row[c]:20.3f}" if c in row else f"{'-':>20}" for c in columns)
            lines.append(f"{name:28}" + "".join(cells))
    return "\n".join(lines)
