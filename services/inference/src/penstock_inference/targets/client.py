"""One server over HTTP: a call's chunks as they come. The `openai` client over a connection pool of the target's own.

The client neither retries nor follows redirects, and tells the server nothing of this machine: what it would
add of itself is taken off each request. Which target is asked, and what follows a failure, is `answers`' work.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import httpx2
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from pydantic import SecretStr

from penstock.contracts.errors import ConnectionFailed, InvalidRequest, StageError
from penstock.contracts.events import OutputFormat, PromptPart
from penstock.contracts.request import schema_of
from penstock_inference.backend import FinishedBy, GenerationRequest
from penstock_inference.targets.calls import Chunk
from penstock_inference.targets.config import Target

_REASONS: Final[dict[str, FinishedBy]] = {"stop": "stop", "length": "length"}
_TELLTALE: Final = ("x-stainless-", "openai-organization", "openai-project")
_PENALTIES: Final = ("presence_penalty", "frequency_penalty")
_BEYOND_THE_API: Final = ("top_k", "min_p", "repetition_penalty")
"""By the names that vLLM, llama.cpp and others share."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SEED_SPACE: Final = 2**63
"""Servers keep a seed in a signed 64-bit integer."""
_NO_KEY: Final = "none"
"""The client wants one; the header is taken off."""


class ServerClient:
    """Implements `calls.Client` for one server. Used in one event loop."""

    def __init__(self, target: Target, key: SecretStr) -> None:
        self._target = target
        self._keyless = not key.get_secret_value()
        times = target.timeouts
        self._http = httpx2.AsyncClient(
            # reading is bounded by `_within`, which a server's keep-alive comments do not put off
            timeout=httpx2.Timeout(times.total_s, connect=times.connect_s, pool=times.connect_s),
            limits=httpx2.Limits(max_connections=target.max_in_flight, max_keepalive_connections=target.max_in_flight),
            event_hooks={"request": [self._clean]},
        )
        self._api = AsyncOpenAI(
            api_key=key.get_secret_value() or _NO_KEY,
            base_url=target.base_url,
            organization="",
            project="",
            max_retries=0,
            http_client=self._http,
        )

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk]:
        """The chunks of one answer; the last has a finish reason or follows one that had.

        Raises what the client raises, TimeoutError, ConnectionFailed where the answer breaks off, and
        InvalidRequest where the server's own filter ended it. Closing the generator closes the HTTP stream.
        """
        times = self._target.timeouts
        finished = False
        async with asyncio.timeout(times.total_s):
            stream: AsyncStream[ChatCompletionChunk] = await _within(
                times.first_token_s, self._api.chat.completions.create(**body_of(request, self._target))
            )
            try:
                wait_s = times.first_token_s
                while (came := await _within(wait_s, anext(stream, None))) is not None:
                    chunk = _chunk(came)
                    wait_s = times.idle_s
                    finished = finished or chunk.finish_reason is not None
                    yield chunk
            finally:
                await stream.close()
        if not finished:
            raise ConnectionFailed(f"target {self._target.name} broke off in the middle of its answer")

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def _clean(self, request: httpx2.Request) -> None:
        for name in [name for name in request.headers if name.lower().startswith(_TELLTALE)]:
            del request.headers[name]
        request.headers["user-agent"] = "penstock"
        if self._keyless:
            del request.headers["authorization"]


async def _within(seconds: float, waited: Any) -> Any:
    async with asyncio.timeout(seconds):
        return await waited


def body_of(request: GenerationRequest, target: Target) -> dict[str, Any]:
    """What is sent: anonymized text, how to generate, and nothing of who asks."""
    parameters = request.parameters
    body: dict[str, Any] = {
        "model": target.model,
        "messages": messages_of(request.prompt),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "seed": request.seed % _SEED_SPACE,
        target.limit_field: parameters.max_tokens,
    }
    for name in _PENALTIES:
        if (value := getattr(parameters, name)) is not None:
            body[name] = value
    if parameters.stop:
        body["stop"] = list(parameters.stop)
    if (wanted := _format(parameters.output)) is not None:
        body["response_format"] = wanted
    given = {name: getattr(parameters, name) for name in _BEYOND_THE_API if name not in target.omit}
    beyond = {name: value for name, value in given.items() if value is not None}
    if beyond or target.extra:
        body["extra_body"] = {**beyond, **target.extra}
    return {name: value for name, value in body.items() if name not in target.omit}


def messages_of(prompt: Sequence[PromptPart]) -> list[dict[str, str]]:
    """The request's messages without what the local model's template put between them: the server has its own."""
    messages: dict[int, dict[str, str]] = {}
    for part in prompt:
        if part.kind != "text":
            continue
        index = part.message if part.message is not None else -1
        message = messages.setdefault(index, {"role": part.role or "user", "content": ""})
        if part.field != "name":
            message["content"] += part.text
        elif _NAME.fullmatch(part.text):  # e.g. no placeholder: servers refuse its brackets
            message["name"] = part.text
    if not messages:
        raise StageError("the prompt has no text", code="empty_prompt", field="messages")
    return [messages[index] for index in sorted(messages)]


def _format(output: OutputFormat) -> dict[str, Any] | None:
    match output.type:
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            schema = schema_of(output.json_schema or "{}")
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        case _:
            return None


def _chunk(came: ChatCompletionChunk) -> Chunk:
    text, reason = "", None
    for choice in came.choices or ():
        text += (choice.delta.content if choice.delta is not None else None) or ""
        if choice.finish_reason == "content_filter":
            raise InvalidRequest("the target's own content filter ended the answer")
        if choice.finish_reason is not None:
            reason = _REASONS.get(choice.finish_reason, "stop")
    fingerprint = getattr(came, "system_fingerprint", None)
    usage = came.usage
    return Chunk(
        text=text,
        finish_reason=reason,
        input_tokens=usage.prompt_tokens if usage is not None else None,
        output_tokens=usage.completion_tokens if usage is not None else None,
        model=f"{came.model}@{fingerprint}" if fingerprint else came.model or "",
    )
