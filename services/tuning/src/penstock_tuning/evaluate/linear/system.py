"""The baselines together, trained once and kept: a folder of the cache is named for the data, the seed and the code."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from penstock.heads.spans import Span
from penstock_safety import features as ngrams
from penstock_tuning.data.build import Built, Progress
from penstock_tuning.data.example import Example
from penstock_tuning.evaluate.linear import names, pairs, safety
from penstock_tuning.evaluate.systems import Scores, Texts

MODULES = ("safety.py", "names.py", "pairs.py", "system.py")
CARD = "card.json"
MOST_SEGMENTS, MOST_TEXTS, MOST_PAIRS = 120_000, 25_000, 40_000
"""Drawn for the baseline of safety, of names, of pairs: what a core trains on in two minutes."""
MOST_CHOSEN = 1_500
"""Texts that the readiness to find names is chosen by."""


class Linear:
    """Implements `System`."""

    def __init__(
        self, judge: safety.LinearSafety, reader: names.LinearNames, cosine: pairs.NGramCosine, overlap: pairs.Overlap
    ) -> None:
        self._judge, self._reader, self._cosine, self._overlap = judge, reader, cosine, overlap
        self.flag: Mapping[str, float] = {
            **dict(zip(safety.LABELS, map(float, judge.thresholds), strict=True)),
            "entailed": overlap.threshold,
        }

    def safety(self, texts: Texts) -> Scores:
        """As `System.safety`; NaN for the categories of harm."""
        return self._judge(texts)

    def names(self, texts: Texts) -> list[list[Span]]:
        """As `System.names`."""
        return self._reader(texts)

    def similarity(self, texts: Texts, others: Texts) -> Scores:
        """The cosine of weighted n-grams."""
        return self._cosine(texts, others)

    def entailment(self, responses: Texts, evidence: Texts) -> Scores:
        """As `System.entailment`."""
        return self._overlap(responses, evidence)


def trained(
    train: Mapping[str, Built], chosen_by: Mapping[str, Built], seed: int, cache: Path, tell: Progress
) -> Linear:
    """The baselines of these splits, from the cache or trained now.

    Args:
        train: by task, the training split.
        chosen_by: by task, the validation split, which thresholds are chosen on.
        seed: of what is drawn.
        cache: where trained baselines are kept; a folder of it can be deleted at any time.
        tell: is told in a sentence what is being done.
    """
    folder = cache / f"linear-{_digest([train[task].card['digest'] for task in sorted(train)], seed)[:16]}"
    if not (folder / CARD).exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _train(train, chosen_by, seed, part, tell)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return Linear(
        safety.LinearSafety.load(folder / "safety.npz"),
        names.LinearNames.load(folder / "names.npz"),
        *pairs.load(folder / "pairs.npz"),
    )


def _train(train: Mapping[str, Built], chosen_by: Mapping[str, Built], seed: int, folder: Path, tell: Progress) -> None:
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def done(task: str) -> None:
        seconds[task] = round(time.monotonic() - began - sum(seconds.values()), 1)
        tell(f"linear baseline: {task} trained in {seconds[task]:.0f} s")

    alike = _drawn(train["similarity"], MOST_PAIRS, seed)
    cosine = pairs.NGramCosine.of([side for row in alike for side in (row.text, row.pair or "")])
    done("similarity")
    overlap = pairs.Overlap.of(_drawn(train["entailment"], MOST_PAIRS, seed), list(chosen_by["entailment"]))
    done("entailment")
    pairs.save(cosine, overlap, folder / "pairs.npz")
    reader = names.fit(_drawn(train["pii"], MOST_TEXTS, seed), _drawn(chosen_by["pii"], MOST_CHOSEN, seed), seed)
    reader.save(folder / "names.npz")
    done("pii")
    ordinary = [row.text for row in chosen_by["safety"] if row.labels.get("harmful") == 0]
    safety.fit(train["safety"], ordinary, seed, MOST_SEGMENTS).save(folder / "safety.npz")
    done("safety")
    (folder / CARD).write_text(json.dumps({"seconds": seconds, "seed": seed}) + "\n", "utf-8")


def _drawn(rows: Built, most: int, seed: int) -> Sequence[Example]:
    every = list(rows)
    return every if len(every) <= most else random.Random(seed).sample(every, most)


def _digest(parts: Sequence[str], seed: int) -> str:
    own = resources.files("penstock_tuning.evaluate.linear")
    code = [(own / name).read_bytes() for name in MODULES] + [Path(ngrams.__file__).read_bytes()]
    return hashlib.sha256(b"\n".join([*(part.encode() for part in parts), str(seed).encode(), *code])).hexdigest()
