"""Preprocess: a raw record to `RequestPreprocessed`, or the typed error that refuses it.

Every request id is remembered with the place of the record that brought it first, refused requests
included, so that the same id at another place is a duplicate and the same record read again is not. A dead
letter that is sent again names the place it had (`redrive-of`) and takes it over: each place is left once.
It removes no personal data and screens nothing: its output is restricted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock.contracts.errors import DuplicateRequest, Expired, InvalidRequest, LimitExceeded, PenstockError
from penstock.contracts.events import (
    Findings,
    GenerationParameters,
    OutputFormat,
    PromptPart,
    RequestContext,
    RequestPreprocessed,
)
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.ingress import context_of
from penstock.contracts.request import CompletionRequest
from penstock.runtime.stage import Inbound, PerRecord, Record, State
from penstock_preprocess.language import SCANNED_CHARACTERS, LanguageDetector
from penstock_preprocess.model import PromptModel
from penstock_preprocess.normalization import Normalizer
from penstock_preprocess.parsing import BodyIds, read_object, validate
from penstock_preprocess.rates import Rates
from penstock_preprocess.template import Turn

SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request is given where it says nothing, and what it may ask for."""

    models: tuple[str, ...]
    """Names served, the first where a request names none; the model's own where empty."""
    max_body_bytes: int
    max_tokens: int
    tenant: str
    interactive_ms: int
    bulk_ms: int


@dataclass(slots=True)
class _Reading:
    """What was made of a record before it was accepted: headers and body, or the first error met."""

    headers: RequestHeaders
    ids: BodyIds
    request: CompletionRequest | None = None
    error: PenstockError | None = None


class PreprocessStage(PerRecord):
    """Validates, normalizes, renders and counts. Pure but for the state of ids seen and what tenants sent lately."""

    name = "preprocess"

    def __init__(
        self,
        *,
        model: Callable[[], PromptModel],
        languages: LanguageDetector,
        seen: State,
        defaults: Defaults,
        rates: Rates,
        release: str,
    ) -> None:
        self._model = model
        self._languages = languages
        self._seen = seen
        self._defaults = defaults
        self._rates = rates
        self.versions: Mapping[str, str] = {"preprocess": release, "language": languages.version}

    def process_one(self, inbound: Inbound) -> RequestPreprocessed:
        """The preprocessed request; every error raised knows the request it is about."""
        record = inbound.record
        reading = self._read(record)
        context = context_of(
            reading.headers,
            record.source,
            record.timestamp_ms,
            key=record.key,
            body_request_id=reading.ids.request_id,
            body_conversation_id=reading.ids.conversation_id,
            body_tenant=reading.ids.tenant,
            default_tenant=self._defaults.tenant,
        )
        try:
            self._remember(context, reading.headers.redrive_of)
            if reading.error is not None:
                raise reading.error
            if reading.request is None:
                raise InvalidRequest("body: nothing was read", field="body")
            _in_time(context, inbound.now_ms)
            return self._preprocess(reading.request, context, inbound.now_ms)
        except PenstockError as error:
            raise error.about(context) from None

    def _read(self, record: Record) -> _Reading:
        """Headers, then body; the first error wins, and what is well-formed of the rest is kept for the context."""
        reading = _Reading(headers=RequestHeaders(), ids=BodyIds())
        try:
            reading.headers = RequestHeaders.parse(record.headers)
            if reading.headers.schema is not None:
                CompletionRequest.accepts(reading.headers.schema)
        except PenstockError as error:
            reading.headers = RequestHeaders.salvage(record.headers)
            reading.error = error
        try:
            document = read_object(record.value, self._defaults.max_body_bytes)
            reading.ids = BodyIds.of(document)
            reading.request = validate(document)
        except PenstockError as error:
            reading.error = reading.error or error
        return reading

    def _remember(self, context: RequestContext, redrive_of: str | None) -> None:
        """Keep the place of the id's record; a dead letter sent again takes the place it names, once."""
        source = context.source
        place = source.place
        first = self._seen.get(context.request_id)
        if first is None or (redrive_of is not None and redrive_of == first):
            self._seen.put(context.request_id, place)
        elif first != place:
            raise DuplicateRequest(
                "request-id: this id was accepted before; the first request's result stands, send new work "
                "under a new id",
                field="request-id",
            )

    def _granted(self, context: RequestContext, tokens: int, now_ms: int) -> RequestContext:
        """The context with the priority that its tenant's rate leaves it: over the rate it is bulk."""
        if context.priority == "bulk" or self._rates.take(context.tenant, tokens, min(context.submitted_ms, now_ms)):
            return context
        return context.model_copy(update={"priority": "bulk", "requested_priority": context.priority})

    def _dated(self, context: RequestContext, now_ms: int) -> RequestContext:
        """The context with a deadline, that of its lane where it brought none."""
        if context.deadline_ms is not None:
            return context
        allowed = self._defaults.bulk_ms if context.priority == "bulk" else self._defaults.interactive_ms
        return context.model_copy(update={"deadline_ms": now_ms + allowed})

    def _preprocess(self, request: CompletionRequest, context: RequestContext, now_ms: int) -> RequestPreprocessed:
        if request.request_id is not None and request.request_id != context.request_id:
            raise InvalidRequest(
                "request_id: header request-id and body name two ids; give one, or the same in both",
                code="invalid_field",
                field="request_id",
            )
        model = self._model()
        named = self._model_name(request.model, model)
        normalizer = Normalizer()
        turns = _turns(request, normalizer)
        stop = normalizer.texts(request.stop_strings)
        prompt = model.template.render(turns, now_ms=now_ms)
        input_tokens = len(model.tokenizer.encode(prompt))
        parameters = GenerationParameters(
            model=named,
            temperature=0.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            repetition_penalty=request.repetition_penalty,
            logprobs=request.alternatives,
            n=request.n if (request.n or 1) > 1 else None,
            max_tokens=self._max_tokens(request, input_tokens, model.context_tokens),
            stop=_not_blank(stop),
            seed=request.seed,
            stream=bool(request.stream),
            cache=request.cache,
            output=_output(request),
        )
        versions = {"tokenizer": model.tokenizer.digest, "chat-template": model.template.digest}
        versions.update(model.adapters.get(named, {}))
        context = context.having(versions={**context.versions, **versions})
        context = self._granted(context, input_tokens + parameters.max_tokens * (parameters.n or 1), now_ms)
        return RequestPreprocessed(
            context=self._dated(context, now_ms),
            findings=Findings(
                input_tokens=input_tokens,
                language=self._languages.detect(_spoken(prompt)),
                changes=normalizer.changes,
            ),
            prompt=prompt,
            parameters=parameters,
            user=request.user,
            metadata=request.metadata or {},
        )

    def _model_name(self, asked: str | None, model: PromptModel) -> str:
        served = self._defaults.models or model.names
        if asked is None:
            return served[0]
        if asked not in served:
            raise InvalidRequest(
                f"model: not served here; served are {', '.join(served)}",
                code="unknown_model",
                field="model",
                limit=", ".join(served),
            )
        return asked

    def _max_tokens(self, request: CompletionRequest, input_tokens: int, context_tokens: int) -> int:
        """What was asked for if it fits, else an error; the default shrinks to the room there is."""
        asked = request.output_limit
        field = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
        if asked is not None and asked >= context_tokens:
            raise LimitExceeded(
                f"{field}: {asked}, but the model's context is {context_tokens} tokens, prompt included",
                field=field,
                limit=context_tokens - 1,
            )
        room = context_tokens - input_tokens
        if room < (asked or 1):
            limit = context_tokens - (asked or 1)
            raise LimitExceeded(
                f"messages: {input_tokens} tokens, more than {limit} (context of {context_tokens} less "
                f"{asked or 1} to generate)",
                code="too_many_tokens",
                field="messages",
                limit=limit,
            )
        return asked if asked is not None else min(self._defaults.max_tokens, room)


def _in_time(context: RequestContext, now_ms: int) -> None:
    """Raises Expired where the request's deadline has passed."""
    if context.deadline_ms is not None and context.deadline_ms <= now_ms:
        raise Expired(
            f"header deadline: passed {now_ms - context.deadline_ms} ms before the request was read",
            field="header deadline",
            limit=context.deadline_ms,
        )


def _turns(request: CompletionRequest, normalizer: Normalizer) -> list[Turn]:
    """The messages, normalized; a bare prompt is one message of the user."""
    if request.messages is None:
        turns = [Turn(role="user", text=normalizer.text(request.prompt or ""))]
        field = "prompt"
    else:
        turns = [
            Turn(
                # the newer name of the same role; chat templates know the older one
                role="system" if message.role in SYSTEM_ROLES else message.role,
                text=normalizer.text(message.text),
                name=None if message.name is None else normalizer.text(message.name),
            )
            for message in request.messages
        ]
        field = "messages"
    if all(not turn.text.strip() for turn in turns if turn.role not in SYSTEM_ROLES):
        raise InvalidRequest(
            f"{field}: no text in it once white space and invisible characters are gone",
            code="empty_prompt",
            field=field,
            limit="at least one visible character",
        )
    return turns


def _not_blank(stop: tuple[str, ...]) -> tuple[str, ...]:
    for index, text in enumerate(stop):
        if not text:
            raise InvalidRequest(
                f"stop[{index}]: only invisible characters; give a visible one or a line feed",
                code="invalid_field",
                field=f"stop[{index}]",
            )
    return stop


def _output(request: CompletionRequest) -> OutputFormat:
    if request.response_format is None:
        return OutputFormat()
    kind, schema = request.response_format.type, request.response_format.json_schema
    if kind == "json_schema" and schema is None:
        raise InvalidRequest(
            "response_format.json_schema: required field is missing where type is json_schema",
            code="missing_field",
            field="response_format.json_schema",
        )
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":")) if kind == "json_schema" else None
    return OutputFormat(type=kind, json_schema=text)


def _spoken(prompt: tuple[PromptPart, ...]) -> str:
    """What the user said, the newest first, as far as the language detector reads."""
    said: list[str] = []
    length = 0
    for part in reversed(prompt):
        if part.kind == "text" and part.role == "user" and length < SCANNED_CHARACTERS:
            said.append(part.text)
            length += len(part.text)
    return "\n".join(said)
