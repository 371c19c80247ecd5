"""The composition root of anonymize: settings to a running stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

from penstock.contracts import topics
from penstock.contracts.errors import ConfigurationError
from penstock.runtime.app import Resources, serve
from penstock.vault import VaultKeys
from penstock_anonymize.detector import Detector
from penstock_anonymize.names import SETTING, ModelNames
from penstock_anonymize.recognizers import ENTITIES
from penstock_anonymize.settings import Settings
from penstock_anonymize.stage import AnonymizeStage, Limits


def build(settings: Settings, resources: Resources) -> AnonymizeStage:
    """The stage; raises ConfigurationError."""
    keys = VaultKeys.parse(settings.vault_keys.get_secret_value())
    entities = settings.anonymize_entities or None
    names = _names(settings)
    _check(entities or (), names)
    return AnonymizeStage(
        detector=Detector(settings.anonymize_score_threshold, entities, names if names and names.types else None),
        keys=keys,
        vaults=resources.state(topics.STATE_VAULTS),
        limits=Limits(part_characters=settings.anonymize_max_part_characters, entities=settings.anonymize_max_entities),
        release=version("penstock-anonymize"),
    )


def _names(settings: Settings) -> ModelNames | None:
    if settings.anonymize_names_model is None:
        return None
    return ModelNames(
        settings.anonymize_names_model,
        threads=settings.anonymize_threads,
        threshold=settings.anonymize_names_threshold,
        entities=settings.anonymize_entities or None,
    )


def _check(entities: Sequence[str], names: ModelNames | None) -> None:
    known = (*ENTITIES, *(names.known if names else ()))
    unknown = sorted(set(entities) - set(known))
    if unknown:
        way_out = "" if names else f"; for names and the like set {SETTING}"
        raise ConfigurationError(
            f"PENSTOCK_ANONYMIZE_ENTITIES: unknown {', '.join(unknown)}; known are {', '.join(known)}{way_out}"
        )


def run(settings: Settings) -> int:
    """Serve until stopped; the exit status."""
    return serve(settings, name="anonymize", consumes=(topics.PREPROCESSED,), build=partial(build, settings))
