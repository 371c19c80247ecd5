"""The composition root of the postprocess service: settings, keys, stage, runtime."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from penstock.contracts import topics
from penstock.runtime.app import Resources, serve
from penstock.runtime.stage import Stage
from penstock.vault import VaultKeys
from penstock_postprocess.settings import Settings
from penstock_postprocess.stage import STAGE, PostprocessStage


def build(settings: Settings, resources: Resources) -> Stage:
    """The stage with everything it needs; it keeps no state."""
    keys = VaultKeys.parse(settings.vault_keys.get_secret_value())
    return PostprocessStage(keys, release=version("penstock-postprocess"), trim=settings.postprocess_trim)


def run(settings: Settings) -> int:
    """Serve until told to stop; the process's exit status."""
    return serve(
        settings,
        name=STAGE,
        consumes=(topics.SCREENED_COMPLETIONS,),
        build=partial(build, settings),
        finished=topics.STATE_FINISHED,
    )
