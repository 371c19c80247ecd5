"""The `chat` span of one generation, by the GenAI semantic conventions. Never any text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from penstock.contracts.adapters import ADAPTER, ADAPTER_DIGEST
from penstock.contracts.events import Completion, GenerationParameters
from penstock_inference.backend import Provenance

OPERATION: Final = "chat"
PROVIDER: Final = "penstock"

_ADAPTER: Final = {ADAPTER: "penstock.adapter", ADAPTER_DIGEST: "penstock.adapter.digest"}
"""Of the event's versions -> as an attribute; the conventions have none."""

_tracer = trace.get_tracer("penstock.inference")


def open_chat(parent: Span, parameters: GenerationParameters, versions: Mapping[str, str]) -> Span:
    """Start the span of one generation, the child of the record's `process` span; `versions` are the event's."""
    attributes: dict[str, str | int | float] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": parameters.model,
        "gen_ai.request.temperature": parameters.temperature,
        "gen_ai.request.top_p": parameters.top_p,
        "gen_ai.request.max_tokens": parameters.max_tokens,
    }
    if parameters.seed is not None:
        attributes["gen_ai.request.seed"] = parameters.seed
    for name, attribute in _ADAPTER.items():
        if name in versions:
            attributes[attribute] = versions[name]
    return _tracer.start_span(
        f"{OPERATION} {parameters.model}",
        context=trace.set_span_in_context(parent),
        kind=SpanKind.CLIENT,
        attributes=attributes,
    )


def close_chat(span: Span, completion: Completion, provenance: Provenance | None = None) -> None:
    """End the span of a generation that came to its end; `provenance` where another made it."""
    if provenance is not None:
        span.set_attribute("gen_ai.provider.name", provenance.provider)
        span.set_attribute("gen_ai.response.model", provenance.model)
        if provenance.address:
            span.set_attribute("server.address", provenance.address)
    span.set_attribute("gen_ai.usage.input_tokens", completion.usage.prompt_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", completion.usage.completion_tokens)
    span.set_attribute("gen_ai.response.finish_reasons", [completion.finish_reason])
    if completion.cached is not None:
        span.set_attribute("penstock.cached", completion.cached)
    if completion.time_to_first_token_ms is not None:
        span.set_attribute("gen_ai.response.time_to_first_chunk", completion.time_to_first_token_ms / 1000)
    span.end()


def fail_chat(span: Span, code: str) -> None:
    """End the span of a generation that failed, was given up or came too late."""
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, code))
    span.end()
