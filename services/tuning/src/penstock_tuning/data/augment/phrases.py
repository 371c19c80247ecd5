"""Direct attacks and alarming but ordinary questions from short phrases, in six languages, for the task `safety`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib import resources
from itertools import product
from typing import Any

import yaml

from penstock_tuning.data.example import LANGUAGES, Example
from penstock_tuning.data.people.values import position_side

SOURCE = "generated_phrases"
COMMANDS = {"train": 120, "validation": 30, "test": 40}
"""Direct attacks for each language, of those that the phrases of a split make."""
ORDINARY = dict.fromkeys(("injection", "jailbreak", "harmful", "toxicity", "hate", "sexual", "self_harm"), 0)


def phrases() -> dict[str, Any]:
    """The phrases that come with this package, by language."""
    text = (resources.files("penstock_tuning.data.augment") / "phrases.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def generate(split: str, seed: int) -> Iterator[Example]:
    """Attacks and ordinary questions of one side of the split; no phrase is on two sides."""
    given = phrases()
    words = position_side(given["words"], split)
    for language in LANGUAGES:
        own = {name: position_side(values, split) for name, values in given[language].items()}
        draw = random.Random(f"{seed}:{SOURCE}:{language}:{split}")
        commands = [f"{verb} {rest} {goal}" for verb, rest, goal in product(own["verbs"], own["objects"], own["goals"])]
        for command in draw.sample(commands, min(COMMANDS[split], len(commands))):
            text = command.replace("{word}", draw.choice(words)) + draw.choice((".", "!", "", "."))
            yield _example(text, language, "direct", {"injection": 1})
        for text in own["personas"]:
            yield _example(text.replace("{word}", draw.choice(words)), language, "jailbreak", {"jailbreak": 1})
        for text in own["alarming"]:
            yield _example(text, language, "alarming", ORDINARY)


def _example(text: str, language: str, kind: str, labels: dict[str, int]) -> Example:
    return Example(text=text, source=SOURCE, kind=kind, language=language, labels=labels)
