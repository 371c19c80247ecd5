"""The composition root of anonymize: settings to a running stage."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from penstock.contracts import topics
from penstock.contracts.errors import ConfigurationError
from penstock.runtime.app import Resources, serve
from penstock.vault import VaultKeys
from penstock_anonymize.detector import Detector
from penstock_anonymize.recognizers import ENTITIES
from penstock_anonymize.settings import Settings
from penstock_anonymize.stage import AnonymizeStage, Limits


def build(settings: Settings, resources: Resources) -> AnonymizeStage:
    """The stage; raises ConfigurationError."""
    keys = VaultKeys.parse(settings.vault_keys.get_secret_value())
    unknown = sorted(set(settings.anonymize_entities) - set(ENTITIES))
    if unknown:
        raise ConfigurationError(
            f"PENSTOCK_ANONYMIZE_ENTITIES: unknown {', '.join(unknown)}; known are {', '.join(ENTITIES)}"
        )
    return AnonymizeStage(
        detector=Detector(settings.anonymize_score_threshold, settings.anonymize_entities or None),
        keys=keys,
        vaults=resources.state(topics.STATE_VAULTS),
        limits=Limits(part_characters=settings.anonymize_max_part_characters, entities=settings.anonymize_max_entities),
        release=version("penstock-anonymize"),
    )


def run(settings: Settings) -> int:
    """Serve until stopped; the exit status."""
    return serve(settings, name="anonymize", consumes=(topics.PREPROCESSED,), build=partial(build, settings))
