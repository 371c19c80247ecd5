"""The five hops that every chain of the benchmark runs: the same contracts, and stages that only pass on.

What a hop does to an event is written once, here; the three kinds of hop differ in how they consume, commit
and produce, which is what is measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.contracts import topics
from penstock.contracts.base import Message
from penstock.contracts.events import (
    Completion,
    CompletionGenerated,
    GenerationParameters,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    RequestScreened,
    Usage,
)
from penstock.contracts.request import CompletionRequest
from penstock.contracts.results import AnswerMessage, Choice, RequestFinished

REQUEST_BYTES = 1_024
WORDS = (
    "water",
    "river",
    "stone",
    "light",
    "early",
    "train",
    "paper",
    "garden",
    "winter",
    "letter",
    "market",
    "window",
)


def preprocess(request: CompletionRequest, context: RequestContext) -> RequestPreprocessed:
    """A request becomes an event; where it stood comes from outside."""
    parts = tuple(
        PromptPart(kind="text", text=message.text, role=message.role, message=index)
        for index, message in enumerate(request.messages or ())
    )
    parameters = GenerationParameters(model=request.model or "none", max_tokens=request.output_limit or 16)
    return RequestPreprocessed(context=context, prompt=parts, parameters=parameters)


def anonymize(event: RequestPreprocessed) -> RequestAnonymized:
    """Nothing to replace."""
    return RequestAnonymized(
        context=event.context, findings=event.findings, prompt=event.prompt, parameters=event.parameters
    )


def screen(event: RequestAnonymized) -> RequestScreened:
    """Nothing to block."""
    return RequestScreened(
        context=event.context, findings=event.findings, prompt=event.prompt, parameters=event.parameters
    )


def infer(event: RequestScreened) -> CompletionGenerated:
    """The prompt is the answer, so that records keep their size."""
    text = event.prompt[0].text
    completion = Completion(
        text=text, finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
    )
    return CompletionGenerated(
        context=event.context, findings=event.findings, completion=completion, parameters=event.parameters
    )


def postprocess(event: CompletionGenerated, now_ms: int) -> RequestFinished:
    """The terminal result."""
    context = event.context
    return RequestFinished(
        id=context.request_id,
        created=now_ms // 1000,
        model=event.parameters.model,
        choices=(
            Choice(message=AnswerMessage(content=event.completion.text), finish_reason=event.completion.finish_reason),
        ),
        usage=event.completion.usage,
        status="completed",
        conversation_id=context.conversation_id,
        tenant=context.tenant,
        priority=context.priority,
        source=context.source,
        versions=context.versions,
        timings=context.timings,
        total_ms=max(0, now_ms - context.submitted_ms),
    )


@dataclass(frozen=True)
class Hop:
    """One service of the chain. `passing` takes the event alone, except in the first and the last hop."""

    name: str
    consumes: str
    produces: str
    kind: type[Message]
    passing: Callable[..., Message]


HOPS = (
    Hop("preprocess", topics.REQUESTS, topics.PREPROCESSED, CompletionRequest, preprocess),
    Hop("anonymize", topics.PREPROCESSED, topics.ANONYMIZED, RequestPreprocessed, anonymize),
    Hop("safety", topics.ANONYMIZED, topics.SCREENED, RequestAnonymized, screen),
    Hop("inference", topics.SCREENED, topics.COMPLETIONS, RequestScreened, infer),
    Hop("postprocess", topics.COMPLETIONS, topics.RESULTS, CompletionGenerated, postprocess),
)
"""Five services, five hops: answers are not screened a second time."""

BY_NAME = {hop.name: hop for hop in HOPS}
PATH = (HOPS[0].consumes, *(hop.produces for hop in HOPS))
"""Topics in the order of the path."""


def request(request_id: str, seed: int = 0) -> bytes:
    """A chat request of about 1 KiB."""
    chosen = random.Random(seed)
    text = " ".join(chosen.choice(WORDS) for _ in range(REQUEST_BYTES // 6))
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": text[: REQUEST_BYTES - 150]}],
        "model": "none",
        "max_tokens": 64,
        "request_id": request_id,
    }
    return CompletionRequest.model_validate(body).encode()
