"""Readers of the public dialogue, question and instruction sets: conversations of (role, text) turns.

Generated conversations come from `generator`. Texts are taken as they are, but for gsm8k's calculator marks.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from penstock_tuning.lm.tokenizer import Turn

_CALCULATOR = re.compile(r"<<[^>]*>>")
_SPEAKER = re.compile(r"^User ([12]): ?", re.M)
# ecqa is left out: its licence is share-alike.
_COT_SETS = ("aqua", "creak", "qasc", "sensemaking", "strategyqa")
_MAX_ANSWER = 1_200


@dataclass(frozen=True)
class Conversation:
    """Turns with where they come from."""

    group: str
    source: str
    """Its name in the manifest, which says on which side of the split it is."""
    key: str
    """Decides whether it is held out to measure language models on."""
    turns: tuple[Turn, ...]


def _pair(group: str, source: str, key: str, question: str, answer: str) -> Iterator[Conversation]:
    question, answer = question.strip(), answer.strip()
    if question and answer and len(answer) <= _MAX_ANSWER and len(question) <= _MAX_ANSWER:
        yield Conversation(group, source, key, (("user", question), ("assistant", answer)))


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _gsm8k(root: Path) -> Iterator[Conversation]:
    for n, row in enumerate(_jsonl(root / "text/gsm8k/train.jsonl")):
        answer = _CALCULATOR.sub("", row["answer"]).replace("\n#### ", "\nThe answer is ")
        yield from _pair("questions", "gsm8k", f"gsm8k:{n}", row["question"], answer + ".")


def _flan_cot(root: Path) -> Iterator[Conversation]:
    for name in _COT_SETS:
        path = root / f"benign/flan_cot/flan/v2/cot_data/{name}_train.tsv"
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            cells = [cell.replace("\\n", "\n") for cell in line.split("\t")]
            if len(cells) == 3:
                answer = f"{cells[2]}\nThe answer is {cells[1]}."
                yield from _pair("questions", f"flan_{name}", f"flan_cot:{name}:{n}", cells[0], answer)


def _gpteacher(root: Path) -> Iterator[Conversation]:
    folder = root / "benign/gpteacher"
    for source, name in (
        ("gpteacher_code", "Codegen/codegen-instruct.json"),
        ("gpteacher_roleplay", "Roleplay/roleplay-simple-deduped-roleplay-instruct.json"),
    ):
        for n, row in enumerate(json.loads((folder / name).read_text(encoding="utf-8"))):
            question = "\n".join(part for part in (str(row["instruction"]), str(row.get("input") or "")) if part)
            yield from _pair("instructions", source, f"gpteacher:{name}:{n}", question, str(row["response"]))


def _octopack(root: Path) -> Iterator[Conversation]:
    for name in ("oasstcommitpackft", "oasstcommitpackftmanual"):
        for n, row in enumerate(_jsonl(root / f"benign/octopack/dataset/oasst/{name}.jsonl")):
            if row["prompt"].isascii() or not re.search(r"[\u0400-\u9fff]", row["prompt"]):
                key = f"octopack:{name}:{n}"
                yield from _pair("instructions", "octopack_chat", key, row["prompt"], row["completion"])


def _self_instruct(root: Path) -> Iterator[Conversation]:
    for source, name in (
        ("self_instruct_seed", "data/seed_tasks.jsonl"),
        ("self_instruct_user", "human_eval/user_oriented_instructions.jsonl"),
    ):
        for n, row in enumerate(_jsonl(root / "benign/self_instruct" / name)):
            for instance in row["instances"]:
                question = f"{row['instruction']}\n{instance['input']}"
                yield from _pair("instructions", source, f"self_instruct:{name}:{n}", question, instance["output"])


def _nl2bash(root: Path) -> Iterator[Conversation]:
    folder = root / "benign/nl2bash/data/bash"
    requests = (folder / "all.nl").read_text(encoding="utf-8").splitlines()
    commands = (folder / "all.cm").read_text(encoding="utf-8").splitlines()
    for n, (request, command) in enumerate(zip(requests[:6000], commands[:6000], strict=True)):
        yield from _pair("instructions", "nl2bash", f"nl2bash:{n // 4}", f"Write a shell command: {request}", command)


def _alternate(texts: Iterable[str]) -> tuple[Turn, ...]:
    turns = tuple((("user", "assistant")[n % 2], text.strip()) for n, text in enumerate(texts))
    turns = turns[: len(turns) // 2 * 2]
    return turns if all(text for _, text in turns) else ()


def _persona(root: Path) -> Iterator[Conversation]:
    for name in ("valid", "test"):
        path = root / f"text/synthetic_persona_chat/data/Synthetic-Persona-Chat_{name}.csv"
        with path.open(encoding="utf-8", newline="") as handle:
            for n, row in enumerate(csv.DictReader(handle)):
                texts = _SPEAKER.split(row["Best Generated Conversation"])[2::2]
                turns = _alternate(texts)
                if turns:
                    yield Conversation("dialogues", "persona_chat", f"persona:{name}:{n}", turns)


def _taskmaster(root: Path) -> Iterator[Conversation]:
    for path in sorted((root / "text/taskmaster4/TM-4-2024/data").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            turns = _alternate(u["text"] for u in row["utterances"])
            if turns and all(u["speaker"] == turn[0] for u, turn in zip(row["utterances"], turns, strict=False)):
                key = f"taskmaster:{row['conversation_id']}"
                yield Conversation("dialogues", "taskmaster", key, turns)


def _chatterbot(root: Path) -> Iterator[Conversation]:
    for path in sorted((root / "text/chatterbot_corpus").glob("*/*.yml")):
        if path.stem in {"politics", "humor", "gossip"}:
            continue
        for n, texts in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]):
            turns = _alternate(str(text) for text in texts)
            if turns:
                key = f"chatterbot:{path.parent.name}/{path.stem}:{n}"
                yield Conversation("dialogues", "chatterbot", key, turns)


def conversations(root: Path) -> Iterator[Conversation]:
    """Yield every conversation of the public sets."""
    for reader in (
        _gsm8k,
        _flan_cot,
        _gpteacher,
        _octopack,
        _self_instruct,
        _nl2bash,
        _persona,
        _taskmaster,
        _chatterbot,
    ):
        yield from reader(root)
