"""The composition root of the inference service: settings, backend, stage, runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import structlog
from prometheus_client import Counter

from penstock.contracts import topics
from penstock.contracts.errors import ConfigurationError
from penstock.embeddings.background import Background
from penstock.embeddings.encoder import Encoder
from penstock.models.entries import Entry
from penstock.models.errors import ModelDamaged
from penstock.runtime.app import Resources, serve
from penstock.runtime.stage import UnorderedStage
from penstock_inference.backend import Backend
from penstock_inference.caching.answers import Bounds
from penstock_inference.caching.backend import Cache, CachingBackend
from penstock_inference.caching.meters import Meters as CacheMeters
from penstock_inference.caching.semantic import Semantic
from penstock_inference.models import LoadModel, Models, load_local
from penstock_inference.opening import open_folder
from penstock_inference.prefixes import Counted
from penstock_inference.runner import Limits
from penstock_inference.settings import Settings
from penstock_inference.stage import STAGE, InferenceStage
from penstock_inference.switching import SwitchingBackend

_log = structlog.get_logger()


def build(settings: Settings, resources: Resources) -> UnorderedStage:
    """The stage with everything it needs."""
    cache = _cache(settings, resources)
    serving = _targets if settings.inference_targets else _local
    backend = serving(settings, resources, cache)
    return InferenceStage(
        backend, resources.tokens, release=version("penstock-inference"), queue=settings.inference_queue
    )


def _cache(settings: Settings, resources: Resources) -> Cache | None:
    """What keeps answers, for all models of the process; None where nothing is kept."""
    if not settings.inference_cache_mib:
        return None
    bounds = Bounds(
        settings.inference_cache_mib << 20, settings.inference_cache_entries, settings.inference_cache_age_s
    )
    return Cache(
        bounds,
        CacheMeters(resources.registry),
        sampled=settings.inference_cache_sampled,
        semantic=_semantic(settings) if settings.inference_cache_semantic else None,
    )


def _semantic(settings: Settings) -> Semantic:
    """What finds kept answers by meaning; raises ConfigurationError where there is no encoder."""
    reference = settings.inference_cache_encoder
    if not reference:
        raise ConfigurationError(
            "PENSTOCK_INFERENCE_CACHE_SEMANTIC needs an encoder: add one with `penstock models add`, and name it in "
            "PENSTOCK_INFERENCE_CACHE_ENCODER"
        )
    entry = settings.registry.find(reference)
    if entry.manifest.vectors is None:
        raise ConfigurationError(
            f"PENSTOCK_INFERENCE_CACHE_ENCODER: {entry.manifest.reference} is no encoder; it has config.json, "
            "tokenizer.json and a model.onnx that gives a vector for each token"
        )
    encoder = Encoder(entry.folder, threads=settings.inference_threads, truncates=False)
    if encoder.digest != entry.manifest.vectors:
        raise ModelDamaged(f"{entry.reference} has changed since it was added; `penstock models verify` says where")
    _log.info("inference.encoder.loaded", encoder=entry.reference, digest=encoder.digest)
    return Semantic(Background(encoder), similarity=settings.inference_cache_similarity, digest=encoder.digest)


def _cached(backend: Backend, cache: Cache | None, source: Callable[[], str]) -> Backend:
    return backend if cache is None else CachingBackend(backend, cache, source)


def _local(settings: Settings, resources: Resources, cache: Cache | None) -> Backend:
    """The model of one folder, or whatever an alias of the registry points at."""
    limits, counted = _limits(settings), _counting(resources)
    if settings.model_dir is not None:
        backend = open_folder(settings.model_dir, limits, counted, settings.inference_engine)
        _log.info("inference.model.loaded", rows=limits.rows, threads=limits.threads, **backend.versions)
        return _cached(backend, cache, lambda: backend.versions["model"])

    def load(entry: Entry) -> Backend:
        loaded = load_local(entry, limits, counted, settings.inference_engine, settings.registry)
        return _cached(loaded, cache, lambda: loaded.versions["model"])

    return _followed(settings, resources, settings.model, load, alone=False)


def _limits(settings: Settings) -> Limits:
    return Limits(
        rows=settings.inference_rows,
        context=settings.inference_context,
        threads=settings.inference_threads,
        spin_us=settings.inference_spin_us,
        memory_mib=settings.inference_memory_mib,
        step_tokens=settings.inference_step_tokens,
        stall_s=settings.inference_stall_ms / 1000,
        prefix_mib=settings.inference_prefix_mib,
        provider=settings.inference_provider,
        adapters=settings.inference_adapters,
        adapter_rank=settings.inference_adapter_rank,
    )


def _followed(
    settings: Settings, resources: Resources, reference: str, load: LoadModel, *, alone: bool
) -> SwitchingBackend:
    models = Models(
        settings.registry,
        reference,
        load,
        count=resources.count_model,
        poll_s=settings.models_poll_ms / 1000,
        linger_s=settings.inference_linger_s,
        alone=alone,
    )
    return models.backend


def _counting(resources: Resources) -> Counted:
    """Counts the tokens of prompts, reused and computed."""
    tokens = Counter(
        "penstock_prefix_tokens",
        "Tokens of prompts, reused from the prefix cache or computed.",
        ["stage", "kind"],
        registry=resources.registry,
    )
    reused, computed = (tokens.labels(STAGE, kind) for kind in ("reused", "computed"))

    def count(of_cache: int, of_model: int) -> None:
        reused.inc(of_cache)
        computed.inc(of_model)

    return count


def _targets(settings: Settings, resources: Resources, cache: Cache | None) -> Backend:
    from penstock_inference.targets.backend import TargetsBackend  # noqa: PLC0415  # its client takes a second to import
    from penstock_inference.targets.config import Target, load  # noqa: PLC0415  # as above

    config = load(settings.inference_targets).run_by(settings.inference_engine)
    book = resources.tallies(topics.STATE_BUDGETS) if config.budgets.limited else None
    limits, counted = _limits(settings), _counting(resources)

    followed: list[SwitchingBackend] = []

    def open_local(target: Target) -> Backend:
        of_target = replace(limits, rows=target.max_in_flight)
        engine = target.engine or settings.inference_engine
        load_it = partial(load_local, limits=of_target, counted=counted, engine=engine, registry=settings.registry)
        followed.append(_followed(settings, resources, target.model, load_it, alone=True))
        return followed[-1]

    backend = TargetsBackend(config, os.environ, open_local, registry=resources.registry, book=book)
    names = [target.name for target in config.targets]
    _log.info("inference.targets.loaded", names=names, rows=backend.rows, digest=config.digest)
    return _cached(backend, cache, lambda: " ".join([config.digest, *(local.promoted for local in followed)]))


def run(settings: Settings) -> int:
    """Serve until told to stop; the process's exit status."""
    return serve(
        settings,
        name=STAGE,
        consumes=(topics.SCREENED,),
        build=partial(build, settings),
        ledger=topics.STATE_CALLS,
    )
