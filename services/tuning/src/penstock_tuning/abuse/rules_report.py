"""Recall and false positives of the rule detectors at the policy's two usual thresholds.

The phrase rules were written with these attack sets in view, so the recall here is that of known phrasing and
says little about new wording.
"""

from __future__ import annotations

import base64
import codecs
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock_safety.detector import Detector
from penstock_safety.rules.encoded import EncodedPayloads
from penstock_safety.rules.injection import InjectionPhrases
from penstock_safety.rules.invisible import InvisibleText
from penstock_safety.rules.secrets import Secrets
from penstock_tuning.abuse import benign_sources, injection_sources

FLAG, BLOCK = 0.7, 0.8
# The guide quotes the very attacks the rules look for: reported beside the ordinary requests, not among them.
QUOTING = frozenset({"prompt_engineering_guide"})

_ENCODINGS: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64_twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "hex": lambda text: text.encode().hex(),
    "percent": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "html_entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "rot13": lambda text: str(codecs.encode(text, "rot13")),
    "reversed": lambda text: text[::-1],
}
_DISGUISES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "spelled_out": lambda text: " ".join(text.replace(" ", "")),
    "leet": lambda text: text.lower().translate(str.maketrans("oiea", "0134")),
    "zero_width": "\u200b".join,
    "cyrillic": lambda text: text.translate(str.maketrans("aeopc", "\u0430\u0435\u043e\u0440\u0441")),
}


def report(root: Path, per_source: int, seed: int) -> dict[str, Any]:
    """Every figure as a rate in 0..1, with the number of texts it rests on."""
    draw = random.Random(seed)
    injection, encoded = InjectionPhrases(), EncodedPayloads()
    detectors: tuple[Detector, ...] = (injection, encoded, Secrets(), InvisibleText())

    recall: dict[str, Any] = {}
    caught: list[str] = []
    for name, load in injection_sources.LOADERS.items():
        texts = list(load(root / "injection"))
        scores = _best(injection, texts)
        recall[name] = {"texts": len(texts), "flag": _rate(scores, FLAG), "block": _rate(scores, BLOCK)}
        caught.extend(text for text, score in zip(texts, scores, strict=True) if score >= BLOCK and len(text) < 200)
    sample = draw.sample(caught, min(100, len(caught)))

    ordinary: dict[str, list[str]] = {}
    for name, load in benign_sources.LOADERS.items():
        texts = sorted(set(load(root)))
        ordinary[name] = draw.sample(texts, min(per_source, len(texts)))
    plain = [text for name, texts in ordinary.items() if name not in QUOTING for text in texts]
    quoting = [text for name in QUOTING for text in ordinary[name]]
    return {
        "injection_recall": recall,
        "encoded_recall": {
            name: _rate(_best(encoded, [encode(text) for text in sample]), FLAG) for name, encode in _ENCODINGS.items()
        },
        "disguised_recall": {
            name: _rate(_best(injection, [hide(text) for text in sample]), FLAG) for name, hide in _DISGUISES.items()
        },
        "ordinary_requests": len(plain),
        "false_positive_rate": {
            d.name: {"flag": _rate(_best(d, plain), FLAG), "block": _rate(_best(d, plain), BLOCK)} for d in detectors
        },
        "texts_quoting_attacks": {"texts": len(quoting), "block": _rate(_best(injection, quoting), BLOCK)},
    }


def _best(detector: Detector, texts: Sequence[str]) -> list[float]:
    return [max((finding.score for finding in found), default=0.0) for found in detector.detect(texts)]


def _rate(scores: Sequence[float], threshold: float) -> float:
    return round(sum(score >= threshold for score in scores) / max(1, len(scores)), 4)
