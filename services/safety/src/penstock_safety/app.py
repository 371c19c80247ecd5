"""The composition root: settings to detectors, policy and stage, and the stage to the runtime."""

from __future__ import annotations

from functools import partial

from penstock.contracts import topics
from penstock.contracts.events import StreamOpening, TokensGenerated, Verdict
from penstock.runtime.app import Resources, serve
from penstock.runtime.relay import Relaying
from penstock.runtime.stage import Stage
from penstock.runtime.streams import StreamOf
from penstock_safety import policy as policies
from penstock_safety.registry import Registry
from penstock_safety.screen import Screener
from penstock_safety.settings import Settings
from penstock_safety.stage import SafetyStage
from penstock_safety.streaming import ScreenedStream, refused
from penstock_safety.windows import WindowSettings


def build(settings: Settings, _resources: Resources | None = None) -> Stage:
    """The stage; raises ConfigurationError where the policy or a detector cannot work."""
    stage, _ = _built(settings)
    return stage


def build_streams(settings: Settings, _resources: Resources | None = None) -> Relaying[TokensGenerated]:
    """What screens streamed answers, with detectors of its own: a piece does not wait for a batch of whole texts."""
    stage, screener = _built(settings)

    def judge(text: str, tenant: str) -> list[Verdict]:
        (findings,) = screener.screen([text])
        return stage.judge(findings, "response", tenant=tenant)

    def begin(whose: StreamOf, opening: StreamOpening) -> ScreenedStream:
        return ScreenedStream(
            judge,
            whose,
            opening,
            hold=settings.safety_stream_hold_chars,
            overlap=settings.safety_window_overlap_chars,
        )

    return Relaying(topics.TOKENS, topics.SCREENED_TOKENS, TokensGenerated.model_validate_json, begin, refused)


def _built(settings: Settings) -> tuple[SafetyStage, Screener]:
    policy = policies.load(settings.safety_policy)
    detectors = Registry(settings.safety_abuse_model, settings.safety_heads_model, settings.safety_threads)
    policy.check(detectors)
    screener = Screener(
        [detectors[name] for name in policy.detectors],
        WindowSettings(settings.safety_window_chars, settings.safety_window_overlap_chars),
        settings.safety_timeout_s,
        settings.safety_batch_chars,
    )
    return SafetyStage(policy, detectors, screener), screener


def run(settings: Settings) -> int:
    """Serve until told to stop; returns the exit status."""
    return serve(
        settings,
        name="safety",
        consumes=(topics.ANONYMIZED, topics.COMPLETIONS),
        build=partial(build, settings),
        streams=partial(build_streams, settings),
    )
