"""What changes an answer, as one digest: two requests with the same key have the same answer.

In it are the tenant, what generates (model or targets, and the adapter's revision), what the prompt was made with,
each part of the prompt as the model gets it, and all parameters but those that only say how the answer is delivered.
The text is what anonymize has left: placeholders in place of personal data, so requests about two persons may have
one key, and each restores its answer by a vault of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from penstock.contracts.events import GenerationParameters, PromptPart
from penstock_inference.backend import GenerationRequest
from penstock_inference.caching.guard import guard_of
from penstock_inference.caching.semantic import Question

_DELIVERY: Final = {"stream", "cache"}


def is_determined(parameters: GenerationParameters) -> bool:
    """Whether the request itself fixes its answer: greedy, or sampled by a seed that it names."""
    return parameters.temperature == 0 or parameters.seed is not None


def key_of(request: GenerationRequest, source: str) -> bytes:
    """SHA-256 of the request; `source` names what generates its answer, e.g. the model's digest."""
    return _digest("exact", *_common(request, source), [_fields(part) for part in request.prompt])


def question_of(request: GenerationRequest, source: str) -> Question | None:
    """The last message where it is the user's and all its text; None for requests that end otherwise."""
    last = max((part.message for part in request.prompt if part.message is not None), default=None)
    places = [place for place, part in enumerate(request.prompt) if part.message == last and part.kind == "text"]
    said = [place for place in places if request.prompt[place].field is None]
    if last is None or not said or any(request.prompt[place].role != "user" for place in places):
        return None
    text = "".join(request.prompt[place].text for place in said)
    rest = [[*_fields(part)[:-1], None if place in said else part.text] for place, part in enumerate(request.prompt)]
    return Question(text, _digest("semantic", *_common(request, source), rest, guard_of(text)))


def _common(request: GenerationRequest, source: str) -> Iterable[Any]:
    made_with = request.prompts and [request.prompts.tokenizer, request.prompts.chat_template]
    parameters = request.parameters.model_dump(mode="json", exclude=_DELIVERY)
    return request.tenant, source, request.adapter, made_with, parameters


def _fields(part: PromptPart) -> list[Any]:
    return [part.kind, part.role, part.message, part.field, part.text]


def _digest(*said: Any) -> bytes:
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).digest()
