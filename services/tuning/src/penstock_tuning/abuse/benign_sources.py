"""Loads ordinary requests and ordinary prose, one loader per data set: the negatives.

Every loader yields whole texts as a user would send them. Caps and splits are decided in `split`.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Loader = Callable[[Path], Iterator[str]]

_TEMPLATE_SLOT = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            if line.strip():
                yield json.loads(line)


def _column(relative: str, name: str, delimiter: str = ",") -> Loader:
    def load(root: Path) -> Iterator[str]:
        with (root / relative).open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle, delimiter=delimiter):
                yield row[name]

    return load


def _field(pattern: str, name: str) -> Loader:
    def load(root: Path) -> Iterator[str]:
        for path in sorted(root.glob(pattern)):
            for row in _json_lines(path):
                yield row[name]

    return load


def _lines(relative: str) -> Loader:
    def load(root: Path) -> Iterator[str]:
        yield from (root / relative).read_text("utf-8").splitlines()

    return load


def bbh(root: Path) -> Iterator[str]:
    for path in sorted((root / "benign" / "bbh" / "bbh").glob("*.json")):
        for row in json.loads(path.read_text("utf-8"))["examples"]:
            yield row["input"]


def clinc150(root: Path) -> Iterator[str]:
    for rows in json.loads((root / "benign" / "clinc150" / "data_full.json").read_text("utf-8")).values():
        for text, _ in rows:
            yield text


def disfl_qa(root: Path) -> Iterator[str]:
    for row in json.loads((root / "benign" / "disfl_qa" / "train.json").read_text("utf-8")).values():
        yield row["original"]
        yield row["disfluent"]


def flan_cot(root: Path) -> Iterator[str]:
    for path in sorted((root / "benign" / "flan_cot").rglob("*.tsv")):
        for line in path.read_text("utf-8").splitlines():
            yield line.split("\t")[0].replace("\\n", "\n")


def gpteacher(root: Path) -> Iterator[str]:
    for path in sorted((root / "benign" / "gpteacher").rglob("*.json")):
        for row in json.loads(path.read_text("utf-8")):
            yield f"{row['instruction']}\n{row['input']}".strip()
            yield row["response"]


def humaneval(root: Path) -> Iterator[str]:
    with gzip.open(root / "benign" / "humaneval" / "data" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)["prompt"]


def octopack(root: Path) -> Iterator[str]:
    folder = root / "benign" / "octopack" / "dataset" / "oasst"
    for row in _json_lines(folder / "oasstcommitpackft.jsonl"):
        yield row["prompt"]
        yield row["completion"]
    for row in _json_lines(folder / "rawin.jsonl"):
        yield row["instruction"]


def open_assistant(root: Path) -> Iterator[str]:
    folder = root / "benign" / "open_assistant_eval" / "model" / "model_eval" / "manual" / "data"
    for name in ("en_100_text.jsonl", "prompt_lottery_en_250_text.jsonl"):
        yield from _json_lines(folder / name)


def promptsource(root: Path) -> Iterator[str]:
    text = (root / "benign" / "promptsource" / "all_templates.txt").read_text("utf-8")
    for match in re.finditer(r"jinja: \"(.+?)\"\n {4}\w", text, re.S):
        yield _TEMPLATE_SLOT.sub(" ", re.sub(r"\\\n\s*\\?", "", match.group(1)).replace("\\n", "\n"))


def self_instruct(root: Path) -> Iterator[str]:
    for relative in ("human_eval/user_oriented_instructions.jsonl", "data/seed_tasks.jsonl"):
        for row in _json_lines(root / "benign" / "self_instruct" / relative):
            yield f"{row['instruction']}\n{row['instances'][0]['input']}".strip()


def snips(root: Path) -> Iterator[str]:
    for path in sorted((root / "benign" / "snips").rglob("train_*_full.json")):
        for rows in json.loads(path.read_text("latin-1")).values():
            for row in rows:
                yield "".join(piece["text"] for piece in row["data"])


def firewall_benign(root: Path) -> Iterator[str]:
    path = root / "injection" / "prompt_injection_firewall" / "benchmarks" / "dataset" / "benign.json"
    for row in json.loads(path.read_text("utf-8"))["samples"]:
        yield row["text"]


def translated_questions(root: Path) -> Iterator[str]:
    """Trivia questions in several languages, with and without "please answer the following question"."""
    path = root / "injection" / "tasktracker" / "datasets" / "translated_secondary_tasks.txt"
    for line in path.read_text("utf-8").splitlines():
        yield line
        yield line.partition(":")[2].strip()


def chatterbot(root: Path) -> Iterator[str]:
    """Small talk in English, French, German and Spanish."""
    for path in sorted((root / "text" / "chatterbot_corpus").rglob("*.yml")):
        for turns in yaml.safe_load(path.read_text("utf-8"))["conversations"]:
            yield from (turn for turn in turns if isinstance(turn, str))


def prose(root: Path) -> Iterator[str]:
    """Technical and literary prose in six languages, a paragraph at a time."""
    paths: list[Path] = []
    for folder in sorted((root / "text").iterdir()):
        found = [p for p in folder.rglob("*") if p.suffix in (".md", ".txt", ".mdx", ".jsonl") and p.is_file()]
        paths.extend(sorted(p for p in found if p.stem not in ("SOURCE", "LICENSE"))[:40])
    for path in paths:
        raw = path.read_text("utf-8", errors="replace")
        if path.suffix == ".jsonl":
            raw = "\n\n".join(str(json.loads(line).get("text", "")) for line in raw.splitlines()[:200])
        yield from (block for block in raw.split("\n\n")[:400] if 40 <= len(block) <= 1200)


LOADERS: dict[str, Loader] = {
    "advbench_benign": _lines("benign/advbench_fuzzyai/benign_prompts.txt"),
    "banking77": _column("benign/banking77/train.csv", "text"),
    "bbh": bbh,
    "chatterbot": chatterbot,
    "clinc150": clinc150,
    "coconot_contrast": _field("benign/coconot/coconot_pref.jsonl", "prompt"),
    "disfl_qa": disfl_qa,
    "fabric_patterns": _field("benign/fabric_patterns/patterns.jsonl", "text"),
    "firewall_benign": firewall_benign,
    "flan_cot": flan_cot,
    "gorilla": _field("benign/gorilla/user_requests.jsonl", "prompt"),
    "gpteacher": gpteacher,
    "humaneval": humaneval,
    "mbxp": _field("benign/mbxp/data/mbxp/mbpp_release_v1.jsonl", "prompt"),
    "nl2bash": _lines("benign/nl2bash/data/bash/all.nl"),
    "octopack": octopack,
    "open_assistant": open_assistant,
    "prompt_engineering_guide": _field("benign/prompt_engineering_guide/text_*.jsonl", "text"),
    "prompts_chat": _column("benign/prompts_chat/prompts.csv", "prompt"),
    "promptsource": promptsource,
    "prose": prose,
    "self_instruct": self_instruct,
    "snips": snips,
    "translated_questions": translated_questions,
    "tldr_pages": _field("benign/tldr_pages/tldr_*.jsonl", "text"),
}
