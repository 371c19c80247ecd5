"""The detectors a policy can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from penstock_safety.classifier import AbuseClassifier
from penstock_safety.detector import Detector
from penstock_safety.rules.encoded import EncodedPayloads
from penstock_safety.rules.injection import InjectionPhrases
from penstock_safety.rules.invisible import InvisibleText
from penstock_safety.rules.secrets import Secrets


def registry(abuse_model: Path, threads: int) -> Mapping[str, Detector]:
    """Every detector by name, loaded. Raises ConfigurationError where one cannot be."""
    builders: dict[str, Callable[[], Detector]] = {
        Secrets.name: Secrets,
        InjectionPhrases.name: InjectionPhrases,
        EncodedPayloads.name: EncodedPayloads,
        InvisibleText.name: InvisibleText,
        AbuseClassifier.name: lambda: AbuseClassifier(abuse_model, threads),
    }
    return {name: build() for name, build in builders.items()}
