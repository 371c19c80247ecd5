"""The targets, how they share the work and what they may cost: one YAML or JSON file, or JSON in a variable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from penstock.contracts.errors import ConfigurationError
from penstock.contracts.request import Identifier
from penstock_inference.backend import EngineName
from penstock_inference.spans import PROVIDER

VARIABLE = "PENSTOCK_INFERENCE_TARGETS"
EVERYONE = "*"
"""In budgets: each tenant that is not named."""

Seconds = Annotated[float, Field(gt=0, le=3_600)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
Role = Literal["primary", "fallback", "canary", "shadow"]

_OWN_FIELDS = frozenset({"messages", "model", "stream", "stream_options"})
_OF_SERVERS = frozenset({"base_url", "api_key_env", "api_key_file", "limit_field", "omit", "extra"})


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Price(_Part):
    """Per 1,000 tokens, in whatever currency the budgets are."""

    input: Amount = 0.0
    output: Amount = 0.0

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / 1000


class Timeouts(_Part):
    """Seconds."""

    connect_s: Seconds = 5.0
    first_token_s: Seconds = 60.0
    """From sending the request to the first chunk of the answer."""
    idle_s: Seconds = 30.0
    """Between two chunks."""
    total_s: Seconds = 600.0


class BreakerFigures(_Part):
    """When a target is left alone, and for how long."""

    window: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Calls that are looked at, the newest."""
    failures: Annotated[int, Field(ge=1, le=10_000)] = 5
    """So many failures among them open the breaker."""
    open_s: Seconds = 10.0
    """How long it stays open; doubles each time a trial fails."""
    open_max_s: Seconds = 300.0
    successes: Annotated[int, Field(ge=1, le=100)] = 2
    """So many trials, one at a time, close it again."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.failures > self.window:
            raise ValueError("failures is more than window: the breaker could never open")
        return self


Omissible = Literal[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stream_options",
    "response_format",
]


class Target(_Part):
    """One server and model, or a local model."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    base_url: str = ""
    """Up to and with the version, e.g. https://llm.example.org/v1."""
    local: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """In place of a server: what this process runs of the registry, an alias, which is followed, or NAME@REVISION."""
    engine: EngineName | None = None
    """Of a local one: what runs it; the service's own setting where absent."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """As the server names it; of a local one the same as `local`."""
    provider: Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$")] = "openai"
    """`gen_ai.provider.name` in metrics and spans."""
    role: Role = "primary"
    weight: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    """Of a primary target, beside the others'."""
    share: Share = 0.0
    """Of a canary or shadow target: how many of the requests, by their ids."""
    tenants: tuple[Identifier, ...] = ()
    """Of a primary or fallback target: it serves these alone. Of a canary or shadow: all of their requests."""
    max_in_flight: Annotated[int, Field(ge=1, le=1_024)] = 8
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    api_key_file: Path | None = None
    price: Price = Price()
    timeouts: Timeouts = Timeouts()
    breaker: BreakerFigures = BreakerFigures()
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the limit on the answer."""
    omit: tuple[Omissible, ...] = ()
    """Fields of the request's body that the server does not take."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request's body."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("local") is not None:
            if "model" in given:
                raise ValueError("local and model: a local target has no other name for its model")
            return {"provider": PROVIDER, **given, "model": given["local"]}
        return given

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an http or https URL with a host")
        if parts.username or parts.password or parts.query:
            raise ValueError("give the key by api_key_env or api_key_file, never in the URL")
        return value.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := _OWN_FIELDS & value.keys():
            raise ValueError(f"{min(taken)} is set by this service")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = self.model_fields_set
        if self.local is None:
            if "base_url" not in given:
                raise ValueError("give base_url, or local")
            if self.engine is not None:
                raise ValueError("engine is of a local target")
        elif others := sorted(_OF_SERVERS & given):
            raise ValueError(f"{others[0]} is of a server, and the target is local")
        elif "connect_s" in self.timeouts.model_fields_set:
            raise ValueError("timeouts.connect_s is of a server, and the target is local")
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("api_key_env and api_key_file: give one of the two")
        if self.share and self.role not in ("canary", "shadow"):
            raise ValueError(f"share is of a canary or a shadow, and role is {self.role}")
        if self.role in ("canary", "shadow") and not (self.share or self.tenants):
            raise ValueError(f"a {self.role} without share and tenants would never be called")
        return self

    @property
    def host(self) -> str:
        """`server.address` in metrics and spans; empty for a local one."""
        return urlsplit(self.base_url).hostname or ""

    def key(self, environment: Mapping[str, str]) -> SecretStr:
        """The API key; empty where none is configured. Raises ConfigurationError where it is not where it should be."""
        if self.api_key_env is not None:
            value = environment.get(self.api_key_env, "")
            if not value:
                raise ConfigurationError(f"{VARIABLE}: target {self.name}: the variable of api_key_env is not set")
            return SecretStr(value)
        if self.api_key_file is not None:
            try:
                value = self.api_key_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"{VARIABLE}: target {self.name}: cannot read {self.api_key_file} ({type(error).__name__})"
                ) from None
            return SecretStr(value)
        return SecretStr("")


class Limits(_Part):
    """Most that may be spent in a day and in a month, by UTC; None is no limit."""

    day: Amount | None = None
    month: Amount | None = None


class Budgets(_Part):
    """Of all requests together, and of each tenant."""

    total: Limits = Limits()
    tenants: dict[Identifier | Literal["*"], Limits] = Field(default_factory=dict)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(one.day is not None or one.month is not None for one in (self.total, *self.tenants.values()))

    def of_tenant(self, tenant: str) -> Limits:
        """A tenant's own, else everyone's."""
        return self.tenants.get(tenant) or self.tenants.get(EVERYONE) or Limits()


class Config(_Part):
    """The whole file."""

    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=64)]
    balance: Literal["weighted", "least_busy"] = "weighted"
    budgets: Budgets = Budgets()

    @model_validator(mode="after")
    def _usable(self) -> Self:
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError("two targets have the same name")
        if not any(target.role == "primary" for target in self.targets):
            raise ValueError("no target has the role primary")
        return self

    def of(self, *roles: Role) -> tuple[Target, ...]:
        """The targets of some roles, in the file's order."""
        return tuple(target for target in self.targets if target.role in roles)

    def run_by(self, engine: EngineName) -> Config:
        """The same, with this engine for the local targets that name none."""
        missing = {"engine": engine}
        targets = (one if one.local is None or one.engine else one.model_copy(update=missing) for one in self.targets)
        return self.model_copy(update={"targets": tuple(targets)})

    @property
    def digest(self) -> str:
        """`sha256:` and 16 hex digits over the whole configuration; keys are no part of it."""
        return f"sha256:{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]}"


def load(setting: str) -> Config:
    """The configuration from a file, or from text that begins with `{`; raises ConfigurationError."""
    if setting.lstrip().startswith("{"):
        text, source = setting, VARIABLE
    else:
        source = f"{VARIABLE}: {setting}"
        try:
            text = Path(setting).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{source}: cannot be read ({type(error).__name__})") from None
    try:
        # JSON is YAML
        return Config.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigurationError(f"{source}: is neither YAML nor JSON{where}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigurationError(f"{source}: {place}: {message}") from None
