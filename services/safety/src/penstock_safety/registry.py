"""The detectors a policy can name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from penstock_safety.classifier import AbuseClassifier
from penstock_safety.detector import Detector
from penstock_safety.heads import HeadsDetector
from penstock_safety.rules.encoded import EncodedPayloads
from penstock_safety.rules.injection import InjectionPhrases
from penstock_safety.rules.invisible import InvisibleText
from penstock_safety.rules.secrets import Secrets


class Registry(Mapping[str, Detector]):
    """Every detector by name. One is loaded when it is first asked for, and raises ConfigurationError if it cannot."""

    def __init__(self, abuse_model: Path, heads_model: Path, threads: int) -> None:
        self._builders: dict[str, Callable[[], Detector]] = {
            Secrets.name: Secrets,
            InjectionPhrases.name: InjectionPhrases,
            EncodedPayloads.name: EncodedPayloads,
            InvisibleText.name: InvisibleText,
            AbuseClassifier.name: lambda: AbuseClassifier(abuse_model, threads),
            HeadsDetector.name: lambda: HeadsDetector(heads_model, threads),
        }
        self._loaded: dict[str, Detector] = {}

    def __getitem__(self, name: str) -> Detector:
        if name not in self._loaded:
            self._loaded[name] = self._builders[name]()
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)
