"""Questions that are kept and questions that are asked, each with what it means.

Only half of all meanings is kept, so that half of what is asked has to find nothing. Of the intent sets two
questions mean the same where their intent is the same; of Disfl-QA a question means its fluent original alone.
"""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

KEPT_OF_A_MEANING = 10
MOST_ASKED = 1_500
MOST_KEPT = 1_500


@dataclass(frozen=True)
class Asked:
    """A question and its meaning."""

    text: str
    meaning: str


@dataclass(frozen=True)
class QuestionSet:
    """What is kept, and what is asked: to choose by, and to report."""

    name: str
    kept: list[Asked]
    chosen_by: list[Asked]
    reported: list[Asked]


def load(data: Path) -> list[QuestionSet]:
    """The three sets of a data folder; raises OSError where one is missing."""
    benign = data / "benign"
    return [_banking(benign / "banking77"), _clinc(benign / "clinc150"), _disfluent(benign / "disfl_qa")]


def _banking(folder: Path) -> QuestionSet:
    def read(name: str) -> list[Asked]:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return [Asked(row["text"], row["category"]) for row in csv.DictReader(file)]

    return split("banking77", read("train.csv"), read("test.csv"), KEPT_OF_A_MEANING)


def _clinc(folder: Path) -> QuestionSet:
    said = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    kept = [Asked(text, intent) for text, intent in said["train"]]
    # what is in no intent means nothing else that is kept
    asked = [Asked(text, intent) for text, intent in [*said["test"], *said["oos_test"]]]
    return split("clinc150", kept, asked, KEPT_OF_A_MEANING)


def _disfluent(folder: Path) -> QuestionSet:
    said = json.loads((folder / "test.json").read_text(encoding="utf-8"))
    kept = [Asked(each["original"], number) for number, each in said.items()]
    asked = [Asked(each["disfluent"], number) for number, each in said.items()]
    return split("disfl_qa", kept, asked, 1)


def split(name: str, kept: list[Asked], asked: list[Asked], of_each: int) -> QuestionSet:
    """Half of the meanings, `of_each` questions of each; what is asked, of all meanings, in two halves."""
    draw = random.Random(name)
    meanings = sorted({question.meaning for question in kept})
    draw.shuffle(meanings)
    by_meaning: dict[str, list[Asked]] = {meaning: [] for meaning in meanings[: len(meanings) // 2]}
    for question in kept:
        if question.meaning in by_meaning:
            by_meaning[question.meaning].append(question)
    some = [each for questions in by_meaning.values() for each in draw.sample(questions, min(of_each, len(questions)))]
    asked = draw.sample(asked, min(MOST_ASKED, len(asked)))
    middle = len(asked) // 2
    return QuestionSet(name, draw.sample(some, min(MOST_KEPT, len(some))), asked[:middle], asked[middle:])
