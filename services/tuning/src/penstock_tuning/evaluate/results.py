"""The whole evaluation: held-out rows, what each system says of them, figures, and their one line of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock_tuning.data.build import Built, Progress, build
from penstock_tuning.data.errors import SourceMissingError
from penstock_tuning.data.example import Example
from penstock_tuning.data.manifest import Manifest
from penstock_tuning.evaluate import names, pairs, safety
from penstock_tuning.evaluate.bootstrap import Estimate
from penstock_tuning.evaluate.figures import MEAN, Figure, Sheet
from penstock_tuning.evaluate.pairs import VALIDATION
from penstock_tuning.evaluate.speed import Speed
from penstock_tuning.evaluate.systems import Answers, Rows, System, ask

SHIPPED, SCRATCH, LINEAR = "shipped", "scratch", "linear"
HEADLINES = (
    "injection_recall_at_1fpr",
    "injection_recall",
    "ordinary_flagged",
    "alarming_flagged",
    "toxicity_auc",
    "toxicity_auc_within",
    "harmful_auc",
    "pii_name_f1",
    "pii_f1",
    "embedding_spearman",
    "embedding_auc",
    "entailment_balanced_accuracy",
    "entailment_auc",
)
"""Metrics whose mean is in the line of JSON."""
LOWER_IS_BETTER = frozenset({"ordinary_flagged", "alarming_flagged"})
TASKS = {"safety": True, "pii": True, "entailment": True, "similarity": False}
"""What is built, and whether training is augmented, as that of the heads is."""


def there(data: Path) -> None:
    """Raise SourceMissingError where there is no data folder."""
    if not data.is_dir():
        raise SourceMissingError(
            f"no data at {data}: set PENSTOCK_DATA to the folder with the public sets that "
            "`penstock tune data verify` lists"
        )


@dataclass(frozen=True)
class Splits:
    """The sides of every task."""

    train: Mapping[str, Built]
    validation: Mapping[str, Built]
    test: Mapping[str, Built]

    @classmethod
    def of(cls, data: Path, cache: Path, seed: int, manifest: Manifest | None, tell: Progress) -> Splits:
        """Build them, or find them in the cache.

        Raises:
            SourceMissingError: the data folder is absent or lacks files.
        """
        there(data)
        train = {
            task: build(task, "train", seed, augment, root=data, cache=cache, manifest=manifest, progress=tell)
            for task, augment in TASKS.items()
        }
        validation, test = ({t: _beside(one, split) for t, one in train.items()} for split in ("validation", "test"))
        return cls(train, validation, test)

    def rows(self) -> Rows:
        """The held-out rows."""
        return Rows(
            safety=list(self.test["safety"]),
            names=list(self.test["pii"]),
            similarity=[*self.test["similarity"], *with_others(list(self.validation["similarity"]))],
            entailment=list(self.test["entailment"]),
        )


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    figures: Sequence[Figure]
    systems: Sequence[str]
    """Names, the first being what the others are compared with."""
    rows: Mapping[str, int]
    """Held-out rows by task."""
    seconds: Mapping[str, float]
    megabytes: Mapping[str, float] = field(default_factory=dict)
    """Of the graph, by system that has one."""
    speed: Speed | None = None
    language: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def headline(self, metric: str) -> Figure | None:
        """The figure of a metric that stands for all; None where no held-out row asks about it."""
        return next((one for one in self.figures if (one.metric, one.group) == (metric, MEAN)), None)

    def line(self) -> str:
        """One line of JSON: of the shipped model under the metric's name, of the others with `_NAME` after it."""
        found: dict[str, Any] = {}
        for metric in HEADLINES:
            figure = self.headline(metric)
            for name, estimate in figure.values.items() if figure else ():
                key = metric if name == SHIPPED else f"{metric}_{name}"
                found[key] = rounded(estimate.value)
                found[f"{key}_ci"] = [rounded(estimate.low), rounded(estimate.high)]
        found |= {"encoder_mb" if n == SHIPPED else f"encoder_mb_{n}": size for n, size in self.megabytes.items()}
        if self.speed:
            found |= {f"speed_{name}": round(value, 3) for name, value in asdict(self.speed).items()}
        if self.language:
            found["lm_perplexity"] = rounded(self.language["all"]["perplexity"])
            found["lm_bits_per_byte"] = rounded(self.language["all"]["bits_per_byte"])
        return json.dumps(found)


def rounded(value: float) -> float | None:
    """Four decimals; None for what does not exist, which JSON has no number for."""
    return None if math.isnan(value) else round(value, 4)


def measure(systems: Mapping[str, System], rows: Rows, resamples: int, seed: int, tell: Progress) -> list[Figure]:
    """Ask every system and make all figures; the first system is what the others are compared with."""
    answers: dict[str, Answers] = {}
    for name, system in systems.items():
        answers[name] = ask(system, rows)
        tell(f"{name}: answered")
    first = next(iter(systems), None)
    return list(_figures(rows, answers, resamples, seed, first))


def _figures(
    rows: Rows, answers: Mapping[str, Answers], resamples: int, seed: int, first: str | None
) -> Iterator[Figure]:
    task: Callable[..., Iterator[Figure]]
    own: Sequence[Example]
    for task, own in (
        (safety.figures, rows.safety),
        (names.figures, rows.names),
        (pairs.similarity, rows.similarity),
        (pairs.entailment, rows.entailment),
    ):
        if own:
            yield from task(own, answers, Sheet.of(own, resamples, seed, first))


def with_others(rows: Sequence[Example]) -> list[Example]:
    """Rows whose pairs are all alike, each followed by the same text with the pair of another document."""
    made: list[Example] = []
    for source in sorted({row.source for row in rows}):
        own = [row for row in rows if row.source == source]
        middle = len(own) // 2
        for at, row in enumerate(own):
            other = own[(at + middle) % len(own)]
            made.append(replace(row, kind=VALIDATION))
            if row.document != other.document and row.pair != other.pair:
                made.append(replace(row, kind=VALIDATION, pair=other.pair, labels={"similar": 0}))
    return made


def _beside(train: Built, split: str) -> Built:
    """Another side of what was built: held-out rows are not augmented, and lie in the same folder."""
    return Built(train.path.with_name(f"{split}.jsonl"), {**train.card, "examples": train.card["splits"][split]})


def better(metric: str, gain: Estimate) -> bool | None:
    """Whether a gain is one with 95 % confidence, a loss, or neither (None)."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    low, high = sorted((sign * gain.low, sign * gain.high))
    return True if low > 0 else False if high < 0 else None
