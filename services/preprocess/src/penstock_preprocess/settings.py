"""The settings of preprocess."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from penstock.contracts.request import MAX_TOKENS_CEILING, Identifier
from penstock.runtime.served_model import ServedModel
from penstock.runtime.settings import ServiceSettings
from penstock_preprocess.rates import Rate

LANGUAGES = (
    *("ar", "bg", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko"),
    *("nl", "no", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh"),
)


class Settings(ServedModel, ServiceSettings):
    """Shared settings and those of preprocess; each is the variable PENSTOCK_<FIELD> in capitals."""

    preprocess_models: tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...] = Field(
        default=(),
        description="Names that requests may give as model, a JSON array; where empty, the alias and the names of the "
        "models that it points or pointed at.",
    )
    preprocess_max_body_bytes: Annotated[int, Field(ge=1_024, le=16_777_216)] = Field(
        default=1_048_576, description="Largest request body."
    )
    preprocess_default_max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_CEILING)] = Field(
        default=128, description="Tokens to generate where a request does not say; less where the context has no room."
    )
    preprocess_default_tenant: Identifier = Field(default="default", description="Tenant of requests that name none.")
    preprocess_deadline_interactive_s: Annotated[int, Field(ge=1, le=2_592_000)] = Field(
        default=900, description="Time an interactive request has where it brings no deadline."
    )
    preprocess_deadline_bulk_s: Annotated[int, Field(ge=1, le=2_592_000)] = Field(
        default=86_400, description="Time a bulk request has where it brings no deadline."
    )
    preprocess_rate_requests: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Requests a second that a tenant may send into the interactive lane; no limit where absent.",
    )
    preprocess_rate_tokens: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Likewise tokens a second, of prompts and asked for."
    )
    preprocess_tenant_rates: dict[Identifier, Rate] = Field(
        default_factory=dict,
        description='Rates of single tenants instead, a JSON object: {"acme": {"requests": 50, "tokens": 20000}}.',
    )
    preprocess_rate_burst_s: Annotated[float, Field(gt=0, le=3_600)] = Field(
        default=10.0, description="How many seconds' worth of its rate a tenant may send at once."
    )
    preprocess_languages: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")], ...] = Field(
        default=LANGUAGES, description="Languages to tell apart, a JSON array; fewer make short texts surer."
    )
    preprocess_language_min_confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Below this the language is `und`."
    )
