"""The safety stage: prompts before inference, completions after it, one path for both.

It applies the policy to what the detectors find: passes the event on with its verdicts, redacts spans, or ends the
request as `blocked`. A detector that fails or is late makes the record wait (a retriable error); nothing passes unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from penstock.contracts.base import Message
from penstock.contracts.errors import RetriableError, StageError
from penstock.contracts.events import (
    Alternative,
    Completion,
    CompletionGenerated,
    CompletionScreened,
    Direction,
    Event,
    RequestAnonymized,
    RequestScreened,
    Verdict,
)
from penstock.contracts.terminal import finish
from penstock.runtime.stage import Inbound, Outcome
from penstock_safety.detector import Detector, Finding, digest_of
from penstock_safety.policy import Policy
from penstock_safety.screen import Screener

RELEASE = "1"

Answer = TypeVar("Answer", Completion, Alternative)


@dataclass(frozen=True, slots=True)
class _Task:
    """The texts of one event, with the part each is."""

    event: RequestAnonymized | CompletionGenerated
    direction: Direction
    parts: tuple[int, ...]
    texts: tuple[str, ...]


class SafetyStage:
    """Implements `penstock.runtime.stage.Stage`."""

    def __init__(self, policy: Policy, detectors: Mapping[str, Detector], screener: Screener) -> None:
        self._policy = policy
        self._digests = {name: detectors[name].digest for name in policy.detectors}
        self._screener = screener

    @property
    def name(self) -> str:
        """The service's name."""
        return "safety"

    @property
    def versions(self) -> Mapping[str, str]:
        """The release, the policy and the detectors, each with what tells it from the next."""
        return {
            "safety": RELEASE,
            "policy": f"{self._policy.version}@{self._policy.digest}",
            "detectors": digest_of(f"{name}={digest}" for name, digest in sorted(self._digests.items())),
        }

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        """One outcome for each record, in order; all their texts go through each detector together."""
        tasks = [_task(inbound) for inbound in batch]
        known = [task for task in tasks if isinstance(task, _Task)]
        answers = iter(self._screener.screen_each([task.texts for task in known]))
        outcomes: list[Outcome] = []
        for inbound, task in zip(batch, tasks, strict=True):
            if not isinstance(task, _Task):
                outcomes.append(task)
                continue
            answer = next(answers)
            outcomes.append(
                answer if isinstance(answer, RetriableError) else self._decide(task, answer, inbound.now_ms)
            )
        return outcomes

    def _decide(self, task: _Task, found: Sequence[Sequence[Finding]], now_ms: int) -> Message:
        verdicts: list[Verdict] = []
        texts: list[str] = []
        for part, text, findings in zip(task.parts, task.texts, found, strict=True):
            own = self.judge(findings, task.direction, tenant=task.event.context.tenant, part=part)
            verdicts.extend(own)
            texts.append(redact(text, own))
        event = task.event.model_copy(
            update={
                "findings": task.event.findings.model_copy(
                    update={"verdicts": (*task.event.findings.verdicts, *verdicts)}
                )
            }
        )
        if any(verdict.action == "block" for verdict in verdicts):
            return _blocked(event, now_ms)
        return _passed(event, dict(zip(task.parts, texts, strict=True)))

    def judge(self, findings: Sequence[Finding], direction: Direction, *, tenant: str, part: int = 0) -> list[Verdict]:
        """What the policy makes of one text's findings; what it allows is left out."""
        verdicts = [
            Verdict(
                direction=direction,
                label=finding.label,
                score=finding.score,
                action=self._policy.action(
                    tenant=tenant, direction=direction, label=finding.label, score=finding.score
                ),
                detector=finding.detector,
                digest=self._digests[finding.detector],
                part=part,
                start=finding.start,
                end=finding.end,
            )
            for finding in findings
        ]
        return [verdict for verdict in verdicts if verdict.action != "allow"]


def redact(text: str, verdicts: Sequence[Verdict]) -> str:
    """The text with every span to redact replaced by `[REDACTED:label]`; spans that overlap become one."""
    spans: list[tuple[int, int, str]] = []
    for verdict in sorted((v for v in verdicts if v.action == "redact"), key=lambda v: (v.start, -v.end)):
        if spans and verdict.start < spans[-1][1]:
            start, end, label = spans[-1]
            spans[-1] = (start, max(end, verdict.end), label)
        else:
            spans.append((verdict.start, verdict.end, verdict.label))
    pieces: list[str] = []
    done = 0
    for start, end, label in spans:
        pieces += (text[done:start], f"[REDACTED:{label}]")
        done = end
    return "".join((*pieces, text[done:]))


def _task(inbound: Inbound) -> _Task | StageError:
    match inbound.event:
        case RequestAnonymized() as event:
            # Template parts come from the model's own template, not from the request.
            chosen = [(index, part.text) for index, part in enumerate(event.prompt) if part.kind == "text"]
            return _Task(event, "prompt", tuple(i for i, _ in chosen), tuple(text for _, text in chosen))
        case CompletionGenerated() as event:
            answers = (event.completion.text, *(other.text for other in event.others or ()))
            return _Task(event, "response", tuple(range(len(answers))), answers)
        case other:
            return StageError(
                f"expected RequestAnonymized or CompletionGenerated, got {type(other).__name__}",
                code="unexpected_event",
            )


def _blocked(event: Event, now_ms: int) -> Message:
    result = finish(event, status="blocked", now_ms=now_ms)
    if isinstance(event, CompletionGenerated):
        # The answer is withheld, but its tokens were generated and count.
        return result.model_copy(
            update={
                "usage": event.completion.usage,
                "cached": event.completion.cached,
                "model": event.parameters.model,
                "time_to_first_token_ms": event.completion.time_to_first_token_ms,
            }
        )
    return result


def _passed(event: RequestAnonymized | CompletionGenerated, texts: Mapping[int, str]) -> Message:
    if isinstance(event, RequestAnonymized):
        prompt = tuple(
            part.model_copy(update={"text": texts[index]}) if index in texts else part
            for index, part in enumerate(event.prompt)
        )
        return RequestScreened(
            context=event.context,
            findings=event.findings,
            prompt=prompt,
            parameters=event.parameters,
            vault=event.vault,
        )
    others = event.others
    return CompletionScreened(
        context=event.context,
        findings=event.findings,
        completion=_screened(event.completion, texts[0]),
        others=others and tuple(_screened(other, texts[number]) for number, other in enumerate(others, 1)),
        parameters=event.parameters,
        vault=event.vault,
    )


def _screened(answer: Answer, text: str) -> Answer:
    """The answer as it may go on; of a redacted one the likelihoods go, in which the whole text would still stand."""
    return answer if answer.text == text else answer.model_copy(update={"text": text, "logprobs": None})
