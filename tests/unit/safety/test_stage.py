"""The stage: both directions through one path, verdicts without text, and failing closed."""

from collections.abc import Sequence

import pytest

from penstock.contracts.errors import BackendUnavailable, StageError
from penstock.contracts.events import (
    Alternative,
    Completion,
    CompletionGenerated,
    CompletionScreened,
    Event,
    Findings,
    GenerationParameters,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    RequestScreened,
    SealedVault,
    Source,
    TokenLikelihood,
    Usage,
    Verdict,
)
from penstock.contracts.results import RequestFinished
from penstock.runtime.stage import Inbound, Record
from penstock_safety.detector import Finding
from penstock_safety.policy import parse
from penstock_safety.screen import Screener
from penstock_safety.stage import SafetyStage, redact
from penstock_safety.windows import WindowSettings

NOW = 1_700_000_000_500
POLICY = """
version: "1"
detectors: [words]
rules:
  prompt:
    low: [{at_least: 0.5, action: flag}]
    mask: [{at_least: 0.5, action: redact}]
    evil: [{at_least: 0.5, action: block}]
  response:
    low: []
    mask: [{at_least: 0.5, action: redact}]
    evil: [{at_least: 0.5, action: block}]
tenants:
  lenient:
    rules:
      prompt:
        evil: [{at_least: 0.5, action: flag}]
"""
VAULT = SealedVault(key_id="k", wrapped_key="a", wrap_nonce="b", nonce="c", ciphertext="d")


class Words:
    """Finds the words low, mask and evil; fails on the word boom."""

    name = "words"
    digest = "sha256:words"
    labels = frozenset({"low", "mask", "evil"})

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        if any("boom" in window for window in windows):
            raise RuntimeError
        return [
            [
                Finding(label, 0.9, at, at + len(label), self.name)
                for label in sorted(self.labels)
                for at in range(len(window))
                if window.startswith(label, at)
            ]
            for window in windows
        ]


@pytest.fixture
def stage() -> SafetyStage:
    words = Words()
    return SafetyStage(parse(POLICY), {"words": words}, Screener([words], WindowSettings(100, 20), 10.0))


def context(tenant: str = "default") -> RequestContext:
    return RequestContext(
        request_id="r1",
        conversation_id="c1",
        tenant=tenant,
        submitted_ms=NOW - 500,
        source=Source(topic="llm.requests", partition=0, offset=1),
    )


def prompt(*texts: str, tenant: str = "default") -> RequestAnonymized:
    parts: list[PromptPart] = [PromptPart(kind="template", text="<|evil|>")]
    for index, text in enumerate(texts):
        parts.append(PromptPart(kind="text", text=text, role="user", message=index))
    return RequestAnonymized(
        context=context(tenant),
        findings=Findings(input_tokens=3, redactions={"PERSON": 1}),
        prompt=tuple(parts),
        parameters=GenerationParameters(model="m", max_tokens=5),
        vault=VAULT,
    )


def answer(text: str) -> CompletionGenerated:
    earlier = Verdict(
        direction="prompt", label="low", score=0.6, action="flag", detector="words", digest="d", part=1, start=0, end=3
    )
    return CompletionGenerated(
        context=context(),
        findings=Findings(input_tokens=3, verdicts=(earlier,)),
        completion=Completion(
            text=text,
            finish_reason="stop",
            usage=Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7),
            time_to_first_token_ms=12.5,
        ),
        parameters=GenerationParameters(model="m", max_tokens=5),
        vault=VAULT,
    )


def inbound(event: Event | None) -> Inbound:
    record = Record(topic="t", partition=0, offset=0, timestamp_ms=NOW, key=None, value=b"")
    return Inbound(record=record, now_ms=NOW, event=event)


def test_a_clean_prompt_passes_unchanged_with_vault_and_findings(stage: SafetyStage) -> None:
    event = prompt("good morning")
    (out,) = stage.process([inbound(event)])
    assert isinstance(out, RequestScreened)
    assert (out.context, out.findings, out.prompt, out.parameters, out.vault) == (
        event.context,
        event.findings,
        event.prompt,
        event.parameters,
        event.vault,
    )


def test_a_clean_answer_passes_unchanged(stage: SafetyStage) -> None:
    event = answer("fine")
    (out,) = stage.process([inbound(event)])
    assert isinstance(out, CompletionScreened)
    assert (out.completion, out.findings, out.vault) == (event.completion, event.findings, event.vault)


def test_a_flagged_prompt_passes_with_its_verdict(stage: SafetyStage) -> None:
    (out,) = stage.process([inbound(prompt("hello", "a low tone"))])
    assert isinstance(out, RequestScreened)
    assert out.prompt[2].text == "a low tone"
    assert out.findings.verdicts == (
        Verdict(
            direction="prompt",
            label="low",
            score=0.9,
            action="flag",
            detector="words",
            digest="sha256:words",
            part=2,
            start=2,
            end=5,
        ),
    )
    assert out.findings.redactions == {"PERSON": 1}


def test_likelihoods_pass_with_the_answer_and_go_with_what_is_redacted(stage: SafetyStage) -> None:
    clean, bad = (
        event.model_copy(
            update={
                "completion": event.completion.model_copy(
                    update={"logprobs": (TokenLikelihood(token="x", logprob=-0.5),)}
                )
            }
        )
        for event in (answer("all is well"), answer("so mask it"))
    )
    passed, redacted = stage.process([inbound(clean), inbound(bad)])
    assert isinstance(passed, CompletionScreened)
    assert passed.completion == clean.completion
    assert isinstance(redacted, CompletionScreened)
    assert redacted.completion.text == "so [REDACTED:mask] it"
    assert redacted.completion.logprobs is None


def test_every_answer_is_screened(stage: SafetyStage) -> None:
    event = answer("all is well")
    others = (
        Alternative(text="so mask it", finish_reason="stop", logprobs=(TokenLikelihood(token="x", logprob=-0.5),)),
        Alternative(text="fine", finish_reason="length"),
    )
    (passed,) = stage.process([inbound(event.model_copy(update={"others": others}))])
    assert isinstance(passed, CompletionScreened)
    assert passed.others == (Alternative(text="so [REDACTED:mask] it", finish_reason="stop"), others[1])
    assert [(v.label, v.part) for v in passed.findings.verdicts if v.direction == "response"] == [("mask", 1)]
    evil = Alternative(text="an evil answer", finish_reason="stop")
    (blocked,) = stage.process([inbound(event.model_copy(update={"others": (others[1], evil)}))])
    assert isinstance(blocked, RequestFinished)
    assert (blocked.status, blocked.choices) == ("blocked", ())
    assert blocked.verdicts[-1].part == 2


def test_spans_to_redact_are_replaced_in_prompt_and_answer(stage: SafetyStage) -> None:
    first, second = stage.process([inbound(prompt("a mask and a mask")), inbound(answer("mask!"))])
    assert isinstance(first, RequestScreened)
    assert first.prompt[1].text == "a [REDACTED:mask] and a [REDACTED:mask]"
    assert first.prompt[0].text == "<|evil|>"
    assert isinstance(second, CompletionScreened)
    assert second.completion.text == "[REDACTED:mask]!"
    assert [v.direction for v in second.findings.verdicts] == ["prompt", "response"]


def test_a_blocked_prompt_ends_the_request_with_its_verdicts_and_no_text(stage: SafetyStage) -> None:
    (out,) = stage.process([inbound(prompt("my evil plan 4711"))])
    assert isinstance(out, RequestFinished)
    assert (out.id, out.status, out.choices, out.usage, out.total_ms) == ("r1", "blocked", (), None, 500)
    assert [(v.label, v.action, v.part) for v in out.verdicts] == [("evil", "block", 1)]
    assert out.redactions == {"PERSON": 1}
    assert "4711" not in out.encode().decode()


def test_a_blocked_answer_is_withheld_but_its_tokens_count(stage: SafetyStage) -> None:
    (out,) = stage.process([inbound(answer("evil 4711"))])
    assert isinstance(out, RequestFinished)
    assert (out.status, out.choices, out.model, out.time_to_first_token_ms) == ("blocked", (), "m", 12.5)
    assert out.usage == answer("").completion.usage
    assert [v.direction for v in out.verdicts] == ["prompt", "response"]
    assert "4711" not in out.encode().decode()


def test_directions_and_tenants_have_their_own_rules(stage: SafetyStage) -> None:
    response, tenant = stage.process([inbound(answer("low")), inbound(prompt("evil", tenant="lenient"))])
    assert isinstance(response, CompletionScreened)
    assert len(response.findings.verdicts) == 1
    assert isinstance(tenant, RequestScreened)
    assert [v.action for v in tenant.findings.verdicts] == ["flag"]


def test_a_failing_detector_holds_back_its_record_alone(stage: SafetyStage) -> None:
    good, bad, blocked = stage.process([inbound(prompt("hi")), inbound(prompt("boom")), inbound(answer("evil"))])
    assert isinstance(good, RequestScreened)
    assert isinstance(bad, BackendUnavailable)
    assert bad.retriable
    assert isinstance(blocked, RequestFinished)


def test_another_event_is_the_stages_error(stage: SafetyStage) -> None:
    wrong, good = stage.process([inbound(None), inbound(prompt("hi"))])
    assert isinstance(wrong, StageError)
    assert isinstance(good, RequestScreened)


def test_versions_name_policy_and_detectors(stage: SafetyStage) -> None:
    assert stage.name == "safety"
    assert stage.versions["policy"].startswith("1@sha256:")
    assert set(stage.versions) == {"safety", "policy", "detectors"}


def test_overlapping_spans_become_one_replacement() -> None:
    def verdict(start: int, end: int, label: str) -> Verdict:
        return Verdict(
            direction="prompt",
            label=label,
            score=1,
            action="redact",
            detector="d",
            digest="x",
            part=0,
            start=start,
            end=end,
        )

    spans = [verdict(4, 8, "b"), verdict(2, 6, "a"), verdict(9, 10, "c")]
    assert redact("0123456789", spans) == "01[REDACTED:a]8[REDACTED:c]"
