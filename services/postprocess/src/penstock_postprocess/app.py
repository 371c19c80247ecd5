"""The composition root of the postprocess service: settings, keys, stage, runtime."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from penstock.contracts import topics
from penstock.contracts.events import StreamOpening
from penstock.contracts.streams import TokensScreened
from penstock.runtime.app import Resources, serve
from penstock.runtime.relay import Relaying
from penstock.runtime.streams import StreamOf
from penstock.vault import VaultKeys
from penstock_postprocess.settings import Settings
from penstock_postprocess.stage import STAGE, PostprocessStage
from penstock_postprocess.streaming import RestoredStream, refused


def build(settings: Settings, _resources: Resources | None = None) -> PostprocessStage:
    """The stage with everything it needs; it keeps no state."""
    return PostprocessStage(_keys(settings), release=version("penstock-postprocess"), trim=settings.postprocess_trim)


def build_streams(settings: Settings, _resources: Resources | None = None) -> Relaying[TokensScreened]:
    """What restores streamed answers."""
    stage, keys = build(settings), _keys(settings)

    def begin(whose: StreamOf, opening: StreamOpening) -> RestoredStream:
        return RestoredStream(stage, keys, whose, opening)

    return Relaying(topics.SCREENED_TOKENS, topics.RESULT_TOKENS, TokensScreened.model_validate_json, begin, refused)


def _keys(settings: Settings) -> VaultKeys:
    return VaultKeys.parse(settings.vault_keys.get_secret_value())


def run(settings: Settings) -> int:
    """Serve until told to stop; the process's exit status."""
    return serve(
        settings,
        name=STAGE,
        consumes=(topics.SCREENED_COMPLETIONS,),
        build=partial(build, settings),
        finished=topics.STATE_FINISHED,
        streams=partial(build_streams, settings),
    )
