"""The composition root of the inference service: settings, backend, stage, runtime."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

import structlog

from penstock.contracts import topics
from penstock.runtime.app import Resources, serve
from penstock.runtime.stage import UnorderedStage
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits
from penstock_inference.settings import Settings
from penstock_inference.stage import STAGE, InferenceStage

_log = structlog.get_logger()


def build(settings: Settings, resources: Resources) -> UnorderedStage:
    """The stage with everything it needs."""
    limits = Limits(
        rows=settings.inference_rows,
        context=settings.inference_context,
        threads=settings.inference_threads,
        memory_mib=settings.inference_memory_mib,
    )
    backend = LocalBackend.load(settings.model_dir, limits)
    _log.info("inference.model.loaded", rows=limits.rows, threads=limits.threads, **backend.versions)
    return InferenceStage(
        backend, resources.tokens, release=version("penstock-inference"), queue=settings.inference_queue
    )


def run(settings: Settings) -> int:
    """Serve until told to stop; the process's exit status."""
    return serve(
        settings,
        name=STAGE,
        consumes=(topics.SCREENED,),
        build=partial(build, settings),
        ledger=topics.STATE_CALLS,
    )
