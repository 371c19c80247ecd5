"""The topics, from `topics.toml` beside this module, and which message each carries.

Creating them on a broker is the runtime's work (`penstock.runtime.topics`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from penstock.contracts.base import Contract, Message
from penstock.contracts.claims import Claim
from penstock.contracts.control import Cancel
from penstock.contracts.events import (
    CompletionGenerated,
    CompletionScreened,
    Event,
    Priority,
    RequestAnonymized,
    RequestPreprocessed,
    RequestScreened,
    TokensGenerated,
)
from penstock.contracts.lanes import BULK_SUFFIX, base_of
from penstock.contracts.request import CompletionRequest
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.streams import TokensRestored, TokensScreened

REQUESTS: Final = "llm.requests"
PREPROCESSED: Final = "llm.preprocessed"
ANONYMIZED: Final = "llm.anonymized"
SCREENED: Final = "llm.screened"
COMPLETIONS: Final = "llm.completions"
TOKENS: Final = "llm.tokens"
SCREENED_TOKENS: Final = "llm.screened-tokens"
RESULT_TOKENS: Final = "llm.result-tokens"
SCREENED_COMPLETIONS: Final = "llm.screened-completions"
RESULTS: Final = "llm.results"
DEAD_LETTERS: Final = "llm.dead-letters"
CONTROL: Final = "llm.control"
STATE_REQUEST_IDS: Final = "llm.state.request-ids"
STATE_VAULTS: Final = "llm.state.vaults"
STATE_CALLS: Final = "llm.state.calls"
STATE_BUDGETS: Final = "llm.state.budgets"
STATE_FINISHED: Final = "llm.state.finished"
RETRY_PREPROCESS: Final = "llm.retry.preprocess"
RETRY_ANONYMIZE: Final = "llm.retry.anonymize"
RETRY_SAFETY: Final = "llm.retry.safety"
RETRY_INFERENCE: Final = "llm.retry.inference"
RETRY_POSTPROCESS: Final = "llm.retry.postprocess"


class StateEntry(Message):
    """A value of a stage's state; the record key is the state's key. `value` is the stage's own text."""

    schema_name: ClassVar[str] = "penstock.state-entry"

    value: str


MESSAGES: Final[Mapping[str, type[Message]]] = {
    message.schema_name: message
    for message in (
        CompletionRequest,
        RequestPreprocessed,
        RequestAnonymized,
        RequestScreened,
        CompletionGenerated,
        CompletionScreened,
        TokensGenerated,
        TokensScreened,
        TokensRestored,
        RequestFinished,
        DeadLetter,
        Cancel,
        StateEntry,
        Claim,
    )
}
"""Schema name -> message."""

EVENTS: Final[Mapping[str, type[Event]]] = {
    PREPROCESSED: RequestPreprocessed,
    ANONYMIZED: RequestAnonymized,
    SCREENED: RequestScreened,
    COMPLETIONS: CompletionGenerated,
    SCREENED_COMPLETIONS: CompletionScreened,
}
"""Topic -> the event between two stages that it carries; its sibling in the bulk lane carries the same."""

RETRIES: Final[Mapping[str, str]] = {
    "preprocess": RETRY_PREPROCESS,
    "anonymize": RETRY_ANONYMIZE,
    "safety": RETRY_SAFETY,
    "inference": RETRY_INFERENCE,
    "postprocess": RETRY_POSTPROCESS,
}
"""Service -> the topic where its records wait to be tried again."""

CLAIMABLE: Final = frozenset({REQUESTS, *EVENTS, RESULTS})
"""The topics whose records may hold a claim instead of their message; so may those of their bulk siblings."""


Party = Literal["upstream", "preprocess", "anonymize", "safety", "inference", "postprocess", "operator"]
"""Who writes or reads a topic: a service, whoever sends requests and awaits results, or a person."""


class Topic(Contract):
    """One topic as `topics.toml` declares it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    message: str
    also: tuple[str, ...] = ()
    written_by: Annotated[tuple[Party, ...], Field(min_length=1)]
    read_by: Annotated[tuple[Party, ...], Field(min_length=1)]
    partitions: Annotated[int, Field(ge=1)]
    retention_hours: Annotated[int, Field(ge=0)]
    cleanup: Literal["delete", "compact", "compact,delete"]
    restricted: bool
    max_message_bytes: Annotated[int, Field(ge=1024)]
    lanes: bool = False
    """Whether it has a sibling for bulk requests."""

    @property
    def messages(self) -> tuple[str, ...]:
        """The schemas that it carries."""
        return (self.message, *self.also)

    @property
    def claim_folder(self) -> str:
        """Where in the claim store the values of its records are: what is restricted stays apart, lanes do not."""
        return f"{'restricted' if self.restricted else 'open'}/{base_of(self.name)}"

    def broker_config(self) -> dict[str, str]:
        """The topic's settings as the broker names them."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_hours * 3_600_000) if self.retention_hours else "-1",
            "max.message.bytes": str(self.max_message_bytes),
        }


@cache
def load_topics() -> tuple[Topic, ...]:
    """All topics in the order of the path; the bulk sibling of one that has lanes comes right after it."""
    text = resources.files(__package__).joinpath("topics.toml").read_text()
    topics: list[Topic] = []
    for entry in tomllib.loads(text)["topic"]:
        topic = Topic.model_validate(entry)
        topics.append(topic)
        if topic.lanes:
            bulk = {"name": f"{topic.name}{BULK_SUFFIX}", "description": f"{topic.description} The bulk lane."}
            topics.append(topic.model_copy(update=bulk))
    return tuple(topics)


@cache
def in_lane(name: str, lane: Priority) -> str:
    """The topic that carries what `name` carries in a lane: its sibling, or itself where it has none."""
    has = any(topic.lanes for topic in load_topics() if topic.name == base_of(name))
    return f"{base_of(name)}{BULK_SUFFIX}" if has and lane == "bulk" else base_of(name)


def claimable(name: str) -> bool:
    """Whether records of the topic may hold a claim."""
    return base_of(name) in CLAIMABLE


@cache
def siblings(name: str) -> tuple[str, ...]:
    """The topic and, where it has one, its sibling in the bulk lane."""
    return tuple(dict.fromkeys((in_lane(name, "interactive"), in_lane(name, "bulk"))))


def topic_of(message: Message | type[Message]) -> str:
    """The one topic of the interactive lane that carries such messages first; they may wait on a retry topic."""
    return topic_of_kind(message.schema_name)


@cache
def topic_of_kind(schema_name: str) -> str:
    """`topic_of` the messages of this name."""
    waiting = RETRIES.values()
    names = [
        topic.name
        for topic in load_topics()
        if topic.message == schema_name and topic.name not in waiting and base_of(topic.name) == topic.name
    ]
    if len(names) != 1:
        raise LookupError(f"{schema_name} is carried by {len(names)} topics")
    return names[0]
