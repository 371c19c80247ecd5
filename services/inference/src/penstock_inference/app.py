"""The composition root of the inference service: settings, backend, stage, runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import structlog
from prometheus_client import Counter

from penstock.contracts import topics
from penstock.runtime.app import Resources, serve
from penstock.runtime.stage import UnorderedStage
from penstock_inference.backend import Backend
from penstock_inference.local import LocalBackend
from penstock_inference.models import Models, load_local
from penstock_inference.runner import Limits
from penstock_inference.settings import Settings
from penstock_inference.stage import STAGE, InferenceStage

_log = structlog.get_logger()


def build(settings: Settings, resources: Resources) -> UnorderedStage:
    """The stage with everything it needs."""
    backend = _servers(settings, resources) if settings.inference_targets else _local(settings, resources)
    return InferenceStage(
        backend, resources.tokens, release=version("penstock-inference"), queue=settings.inference_queue
    )


def _local(settings: Settings, resources: Resources) -> Backend:
    """The model of one folder, or whatever an alias of the registry points at."""
    limits = Limits(
        rows=settings.inference_rows,
        context=settings.inference_context,
        threads=settings.inference_threads,
        memory_mib=settings.inference_memory_mib,
        step_tokens=settings.inference_step_tokens,
        stall_s=settings.inference_stall_ms / 1000,
        prefix_mib=settings.inference_prefix_mib,
    )
    counted = _counting(resources)
    if settings.model_dir is not None:
        backend = LocalBackend.load(settings.model_dir, limits)
        backend.prefixes.counted = counted
        _log.info("inference.model.loaded", rows=limits.rows, threads=limits.threads, **backend.versions)
        return backend
    models = Models(
        settings.registry,
        settings.model,
        partial(load_local, limits=limits, counted=counted),
        count=resources.count_model,
        poll_s=settings.models_poll_ms / 1000,
        linger_s=settings.inference_linger_s,
    )
    return models.backend


def _counting(resources: Resources) -> Callable[[int, int], None]:
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


def _servers(settings: Settings, resources: Resources) -> Backend:
    from penstock_inference.targets.backend import TargetsBackend  # noqa: PLC0415  # its client takes a second to import
    from penstock_inference.targets.config import load  # noqa: PLC0415  # as above

    config = load(settings.inference_targets)
    book = resources.tallies(topics.STATE_BUDGETS) if config.budgets.limited else None
    backend = TargetsBackend(config, os.environ, registry=resources.registry, book=book)
    names = [target.name for target in config.targets]
    _log.info("inference.targets.loaded", names=names, rows=backend.rows, digest=config.digest)
    return backend


def run(settings: Settings) -> int:
    """Serve until told to stop; the process's exit status."""
    return serve(
        settings,
        name=STAGE,
        consumes=(topics.SCREENED,),
        build=partial(build, settings),
        ledger=topics.STATE_CALLS,
    )
