"""The composition root of preprocess: settings to a running stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version

from penstock.contracts import topics
from penstock.runtime.app import Resources, serve
from penstock_preprocess.language import LanguageDetector
from penstock_preprocess.model import PromptModel
from penstock_preprocess.promoted import PromotedModel
from penstock_preprocess.rates import Rate, Rates
from penstock_preprocess.settings import Settings
from penstock_preprocess.stage import Defaults, PreprocessStage


def build(settings: Settings, resources: Resources) -> PreprocessStage:
    """The stage, its model's files read and checked; raises ConfigurationError."""
    return PreprocessStage(
        model=_model(settings, resources),
        languages=LanguageDetector(settings.preprocess_languages, settings.preprocess_language_min_confidence),
        seen=resources.state(topics.STATE_REQUEST_IDS),
        defaults=Defaults(
            models=settings.preprocess_models,
            max_body_bytes=settings.preprocess_max_body_bytes,
            max_tokens=settings.preprocess_default_max_tokens,
            tenant=settings.preprocess_default_tenant,
            interactive_ms=settings.preprocess_deadline_interactive_s * 1000,
            bulk_ms=settings.preprocess_deadline_bulk_s * 1000,
        ),
        rates=Rates(
            Rate(requests=settings.preprocess_rate_requests, tokens=settings.preprocess_rate_tokens),
            settings.preprocess_tenant_rates,
            burst_s=settings.preprocess_rate_burst_s,
        ),
        release=version("penstock-preprocess"),
    )


def _model(settings: Settings, resources: Resources) -> Callable[[], PromptModel]:
    """The model of one folder, or whatever an alias of the registry points at."""
    if settings.model_dir is not None:
        model = PromptModel.from_folder(settings.model_dir)
        return lambda: model
    return PromotedModel(
        settings.registry, settings.model, count=resources.count_model, poll_s=settings.models_poll_ms / 1000
    )


def run(settings: Settings) -> int:
    """Serve until stopped; the exit status."""
    return serve(settings, name="preprocess", consumes=(topics.REQUESTS,), build=partial(build, settings))
