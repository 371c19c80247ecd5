"""Which data set trains, sets the threshold or is reported, and removal of near-duplicates between them.

Whole sources are held out, never rows of one source. A training text that shares a run of eight words with a
held-out text is dropped, so that quoting and reposting between sets does not count as generalization.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from penstock_safety.features import FeatureSettings, segments
from penstock_tuning.abuse import benign_sources, toxic_sources

TRAIN_TOXIC = {
    "davidson": 7000,
    "edos": 16000,
    "germeval2018": 6000,
    "hatemoji": 6000,
    "mlma": 11000,
    "paradetox": 45000,
    "implicit_hate": 6000,
    "toxigen": 6000,
    "surge_profanity": 2000,
}
REPORT_TOXIC = {"surge_toxicity": 1000, "convabuse": 5000, "toxic_spans": 4000, "wiki_madlibs": 6000}

TRAIN_BENIGN = {
    "banking77": 3000,
    "chatterbot": 4000,
    "clinc150": 6000,
    "disfl_qa": 4000,
    "flan_cot": 6000,
    "gpteacher": 16000,
    "mbxp": 1000,
    "nl2bash": 4000,
    "octopack": 4000,
    "prompt_engineering_guide": 500,
    "prompts_chat": 1300,
    "promptsource": 800,
    "prose": 14000,
    "snips": 4000,
    "tldr_pages": 4000,
    "translated_questions": 1000,
}
VALID_BENIGN = {"open_assistant": 350, "gorilla": 1200, "bbh": 300, "fabric_patterns": 150, "humaneval": 164}
REPORT_BENIGN = {"self_instruct": 427, "coconot_contrast": 927, "advbench_benign": 1000, "firewall_benign": 100}

SEGMENTS_PER_DOCUMENT = 6
SHINGLE_WORDS = 8
_WORD = re.compile(r"\w+")


@dataclass
class Split:
    """Training segments with labels, and whole held-out texts by source."""

    texts: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    valid_benign: dict[str, list[str]] = field(default_factory=dict)
    report_benign: dict[str, list[str]] = field(default_factory=dict)
    report_toxic: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    dropped: int = 0


def build(root: Path, seed: int, settings: FeatureSettings) -> Split:
    """Reads every set under `root` (the folder with `benign/` and `toxicity/`) and splits by source."""
    draw = random.Random(seed)
    split = Split(
        valid_benign={name: _benign(root, name, cap, draw) for name, cap in VALID_BENIGN.items()},
        report_benign={name: _benign(root, name, cap, draw) for name, cap in REPORT_BENIGN.items()},
        report_toxic={name: _toxic(root, name, cap, draw) for name, cap in REPORT_TOXIC.items()},
    )
    held_out: set[int] = set()
    for texts in (*split.valid_benign.values(), *split.report_benign.values()):
        _add_shingles(texts, held_out)
    for rows in split.report_toxic.values():
        _add_shingles((text for text, _ in rows), held_out)

    requests: list[str] = []
    for name, cap in TRAIN_BENIGN.items():
        for text in _benign(root, name, cap, draw):
            if _shares(text, held_out):
                split.dropped += 1
                continue
            found = segments(text, settings)
            for start, end in draw.sample(found, min(len(found), SEGMENTS_PER_DOCUMENT)):
                _append(split, text[start:end], 0, name)
                requests.append(text[start:end])
    for name, cap in TRAIN_TOXIC.items():
        for text, label in _toxic(root, name, cap, draw):
            if _shares(text, held_out):
                split.dropped += 1
                continue
            _append(split, text[:400], label, name)
            # Abuse usually arrives inside a request, so a part of the rows is seen in one, with its own label.
            if draw.random() < 0.2 and len(text) < settings.segment_chars:
                request = draw.choice(requests)[: settings.segment_chars // 2]
                pair = [request, text] if draw.random() < 0.5 else [text, request]
                _append(split, " ".join(pair), label, name)
    return split


def _append(split: Split, text: str, label: int, source: str) -> None:
    split.texts.append(text)
    split.labels.append(label)
    split.sources.append(source)


def _benign(root: Path, name: str, cap: int, draw: random.Random) -> list[str]:
    texts = sorted({text.strip() for text in benign_sources.LOADERS[name](root) if text.strip()})
    return draw.sample(texts, min(cap, len(texts)))


def _toxic(root: Path, name: str, cap: int, draw: random.Random) -> list[tuple[str, int]]:
    rows = sorted({row for row in toxic_sources.LOADERS[name](root / "toxicity") if row[0]})
    return draw.sample(rows, min(cap, len(rows)))


def _shingles(text: str) -> Iterable[int]:
    words = _WORD.findall(text.lower())
    # A shorter text is its own shingle, so that exact repeats of short sentences are found too.
    for start in range(max(1, len(words) - SHINGLE_WORDS + 1)):
        joined = " ".join(words[start : start + SHINGLE_WORDS]).encode()
        yield int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")


def _add_shingles(texts: Iterable[str], into: set[int]) -> None:
    for text in texts:
        into.update(_shingles(text))


def _shares(text: str, held_out: set[int]) -> bool:
    return any(shingle in held_out for shingle in _shingles(text))
