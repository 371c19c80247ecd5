"""The settings that every service shares, and how a bad one is refused at start.

A service subclasses `ServiceSettings`; its own fields begin with its name. Only `load` reads the
environment, and only a service's `__main__` calls it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict, SettingsError

from penstock.contracts.errors import PolicyName
from penstock.contracts.events import Priority
from penstock.contracts.lanes import LANES
from penstock.contracts.request import Identifier
from penstock.runtime.connection import PREFIX, KafkaSettings

__all__ = ["EXIT_BAD_SETTINGS", "PREFIX", "BadSettings", "ServiceSettings", "load", "parse", "sentences_of"]

EXIT_BAD_SETTINGS = 2
NEAR_MISS = 0.85
"""How like a shared setting's name another variable must be to count as a typing error."""

S = TypeVar("S", bound="ServiceSettings")


class RetryFigures(BaseModel):
    """What is different for one class of errors; the rest is as the PENSTOCK_RETRY_* settings say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    backoff_ms: Annotated[int, Field(ge=1, le=60_000)] | None = None
    backoff_max_ms: Annotated[int, Field(ge=1, le=3_600_000)] | None = None
    in_place_max_ms: Annotated[int, Field(ge=0, le=60_000)] | None = None
    retry_after_max_ms: Annotated[int, Field(ge=0, le=3_600_000)] | None = None


_PATIENT = RetryFigures(attempts=10, backoff_ms=1_000, backoff_max_ms=60_000)


class ServiceSettings(KafkaSettings):
    """Shared by all services; each field is the variable PENSTOCK_<FIELD> in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    kafka_group_protocol: Literal["consumer", "classic"] = Field(
        default="consumer", description="`consumer` (KIP-848, Kafka 4) or `classic` for older brokers."
    )
    kafka_static_membership: bool = Field(
        default=False,
        description="Keep an instance's partitions for it while it restarts; see operations.md for what that delays.",
    )
    topic_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = Field(
        default="", description="Put before every topic, group and transactional id."
    )
    instance: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        default="0",
        description="Slot of this process among its service's; fixed, so that a restart fences its remains.",
    )
    http_host: str = Field(default="127.0.0.1", description="Where health and metrics listen.")
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0, description="Port of health and metrics; 0 takes a free one and logs it."
    )
    batch_max_records: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=5_000, description="Most records in one transaction."
    )
    batch_target_ms: Annotated[int, Field(ge=1, le=60_000)] = Field(
        default=500, description="About how long the records of one transaction may take; fewer are taken where slow."
    )
    batch_wait_ms: Annotated[int, Field(ge=0, le=5_000)] = Field(
        default=50, description="How long to wait for a fuller batch under load."
    )
    queue_max_kbytes: Annotated[int, Field(ge=1_024, le=1_048_576)] = Field(
        default=16_384,
        description="Most KiB of records fetched ahead, or twice `BATCH_MAX_RECORDS` where that is less.",
    )
    state_max_entries: Annotated[int, Field(ge=1)] = Field(
        default=1_000_000, description="Most keys of a stage's state kept in memory; the least recently used go first."
    )
    cancellations_max: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=100_000, description="Most cancellations in force that a process keeps; the oldest go first."
    )
    lanes: Literal["interactive,bulk", "interactive", "bulk"] = Field(
        default="interactive,bulk", description="Which lanes this process works on."
    )
    lane_bulk_share: Annotated[float, Field(ge=0.01, le=1)] = Field(
        default=0.1, description="Share of the time that bulk work gets however much interactive work there is."
    )
    lane_quiet_ms: Annotated[float, Field(ge=0, le=10_000)] = Field(
        default=10.0, description="How long after interactive work bulk work still keeps to its share."
    )
    lane_slice_ms: Annotated[float, Field(gt=0, le=600_000)] = Field(
        default=5.0, description="About how long bulk work goes on before it looks for interactive work."
    )
    lane_bulk_nice: Annotated[int, Field(ge=0, le=19)] = Field(
        default=10, description="By how much bulk threads are nicer to all others of the machine (Linux)."
    )
    lane_bulk_wait_ms: Annotated[int, Field(ge=0, le=5_000)] = Field(
        default=200, description="How long bulk work waits for a fuller batch while more than one record comes at once."
    )
    retry_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5, description="Attempts at a record, over restarts, before it is a dead letter."
    )
    retry_backoff_ms: Annotated[int, Field(ge=1, le=60_000)] = Field(
        default=100, description="Longest wait before the second attempt; doubles each time, with full jitter."
    )
    retry_backoff_max_ms: Annotated[int, Field(ge=1, le=600_000)] = Field(
        default=5_000, description="Longest wait between attempts, but for what the other side asks for."
    )
    retry_in_place_max_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        default=1_000, description="A longer wait goes through the retry topic, so that other records pass."
    )
    retry_after_max_ms: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        default=300_000, description="Most that is granted of a Retry-After."
    )
    retry_policies: dict[PolicyName, RetryFigures] = Field(
        default={"overloaded": _PATIENT, "rate_limited": _PATIENT},
        description="What is different for a class of errors; see operations.md.",
    )
    retry_window_records: Annotated[int, Field(ge=1, le=20_000)] = Field(
        default=20_000, description="How far in a partition of the retry topic waiting records are looked through."
    )
    retry_window_kbytes: Annotated[int, Field(ge=1, le=1_048_576)] = Field(
        default=65_536, description="Most KiB of waiting records held in memory."
    )
    transaction_timeout_ms: Annotated[int, Field(ge=1_000, le=900_000)] = Field(
        default=10_000, description="After this long the broker aborts a transaction whose process died."
    )
    exactly_once: bool = Field(
        default=True, description="Commit outputs and offsets in one transaction; off, at least once."
    )
    interactive_delivery: Literal["exactly_once", "at_least_once"] = Field(
        default="exactly_once",
        description="Between the stages of the interactive lane; `at_least_once` is faster, postprocess drops repeats.",
    )
    rebalance_grace_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=5.0, description="How long revoked partitions wait for the batch in flight."
    )
    shutdown_timeout_s: Annotated[float, Field(ge=0.1, le=600)] = Field(
        default=8.0, description="How long SIGTERM waits for the batch in flight."
    )
    streams_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=2_000,
        description="Most streamed answers that safety or postprocess has open; beyond it the idlest ends.",
    )
    streams_idle_s: Annotated[float, Field(ge=1, le=3_000)] = Field(
        default=600.0, description="After this long without a piece a streamed answer ends as expired."
    )
    claim_store: str = Field(
        default="",
        description="Where large messages are kept: file:///FOLDER or s3://BUCKET/PREFIX; none where empty.",
    )
    claim_threshold_bytes: Annotated[int, Field(ge=1, le=16_777_216)] = Field(
        default=524_288, description="Larger messages go to the claim store."
    )
    claim_max_bytes: Annotated[int, Field(ge=1_024, le=268_435_456)] = Field(
        default=16_777_216, description="Largest message there may be with a claim store; the same in all services."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or text for a person at a terminal."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.interactive_delivery == "at_least_once" and not self.exactly_once:
            raise ValueError(
                f"{PREFIX}INTERACTIVE_DELIVERY: at_least_once needs {PREFIX}EXACTLY_ONCE=true; repeats are removed in "
                "postprocess's transactions"
            )
        return self


class UnorderedSettings(ServiceSettings):
    """More, for a service whose stage calls something slow and finishes in any order."""

    calls_max_running: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=256, description="Most calls at once, whatever the backend says it can hold."
    )
    calls_max_waiting: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=512, description="Most records taken ahead of the backend; tenants are served in turn among them."
    )
    calls_max_span: Annotated[int, Field(ge=1, le=20_000)] = Field(
        default=16_384,
        description="Most offsets between the oldest unfinished record of a partition and the newest taken.",
    )
    calls_in_key_order: bool = Field(
        default=True, description="Run the calls of one record key, a conversation, one after another."
    )
    calls_first_output_ms: Annotated[int, Field(ge=1, le=3_600_000)] = Field(
        default=5_000, description="Time to first token above which fewer calls are let run at once."
    )
    calls_interactive_share: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.25, description="Share of the calls at once that bulk requests leave free."
    )
    calls_tenant_weights: dict[Identifier, Annotated[float, Field(ge=0.01, le=1_000)]] = Field(
        default_factory=dict, description="Weight of a tenant's turn as a JSON object; 1 where it is not named."
    )
    calls_ledger: bool = Field(
        default=True, description="Note calls and answers in llm.state.calls, so that a crash does not pay twice."
    )


def lanes_of(settings: ServiceSettings) -> tuple[Priority, ...]:
    """The lanes that a process works on."""
    return tuple(lane for lane in LANES if lane in settings.lanes.split(","))


def hasty(settings: ServiceSettings, lane: Priority) -> bool:
    """Whether a lane is delivered at least once between the stages, for the sake of its latency."""
    return lane == "interactive" and settings.interactive_delivery == "at_least_once"


class BadSettings(Exception):
    """Settings that cannot be used; one sentence each."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def parse(cls: type[S]) -> S:
    """Settings from the environment; raises BadSettings with a sentence for each bad variable."""
    sentences = _unknown(cls, os.environ)
    try:
        settings = cls()
    except SettingsError as error:
        raise BadSettings([*sentences, _not_json(cls, error)]) from None
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            sentences += sentences_of(cls, dict(detail))
        raise BadSettings(sentences) from None
    if sentences:
        raise BadSettings(sentences)
    return settings


def load(cls: type[S]) -> S:
    """`parse`, or print each bad setting and exit with 2."""
    try:
        return parse(cls)
    except BadSettings as error:
        for sentence in error.sentences:
            print(f"error: {sentence}", file=sys.stderr)  # noqa: T201  # logging is set up from the settings
        sys.exit(EXIT_BAD_SETTINGS)


def _unknown(cls: type[ServiceSettings], env: Mapping[str, str]) -> list[str]:
    """Variables that are no setting and look like one: in this service's own name space, or near a shared name.

    Others are left alone: services may be given one environment in common.
    """
    own = {name.split("_", 1)[0] for name in cls.model_fields} - {name.split("_", 1)[0] for name in _shared_fields()}
    known = {name.upper() for name in cls.model_fields}
    shared = {name.upper() for name in _shared_fields() & cls.model_fields.keys()}
    sentences = []
    for variable in sorted(env):
        name = variable.upper().removeprefix(PREFIX)
        if name in known or not variable.upper().startswith(PREFIX):
            continue
        is_own = name.split("_", 1)[0].lower() in own
        close = difflib.get_close_matches(name, known if is_own else shared, n=1, cutoff=0.6 if is_own else NEAR_MISS)
        if is_own or close:
            hint = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            sentences.append(f"{variable} is not a setting of this service{hint}")
    return sentences


def _not_json(cls: type[ServiceSettings], error: SettingsError) -> str:
    # the library names the field in its message alone, and reports the first only
    match = re.search(r'field "(\w+)"', str(error))
    name = match[1] if match is not None else "?"
    field = cls.model_fields.get(name)
    purpose = f" ({field.description})" if field is not None and field.description else ""
    return f"{PREFIX}{name.upper()}: input should be JSON{purpose}"


def _shared_fields() -> set[str]:
    # fields that several services define under one name
    return set(ServiceSettings.model_fields) | {"model", "models_dir", "models_poll_ms", "model_dir", "vault_keys"}


def sentences_of(cls: type[ServiceSettings], detail: dict[str, Any]) -> list[str]:
    """What one error of a validation says, a sentence for each thing that is wrong."""
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message.splitlines()  # of several settings together: it names them itself
    return [_sentence(cls, detail, message)]


def _sentence(cls: type[ServiceSettings], detail: dict[str, Any], message: str) -> str:
    name = str(detail["loc"][0])
    variable = f"{PREFIX}{name.upper()}"
    field = cls.model_fields.get(name)
    purpose = f" ({field.description})" if field is not None and field.description else ""
    if detail["type"] == "missing":
        return f"{variable} is required{purpose}"
    return f"{variable}: {message[:1].lower()}{message[1:]}{purpose}"
