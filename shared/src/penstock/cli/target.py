"""Which broker and which topics a command works on, and the Kafka clients for it.

The address is the option's, else PENSTOCK_KAFKA_BOOTSTRAP_SERVERS, else that of the local stack. TLS, user and
password come from the services' own variables, PENSTOCK_KAFKA_SECURITY_PROTOCOL and those beside it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import typer
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from penstock.cli.errors import CommandError, NoBroker
from penstock.cli.state import StateFolder
from penstock.runtime import access, kafka
from penstock.runtime.claims import Claims
from penstock.runtime.settings import ServiceSettings, sentences_of

ANSWER_LIMIT_S = 10.0
"""How long a broker may take to answer a metadata request."""
# errors are told in this command's own words; the client's log would run through them
_QUIET = {"client.id": "penstock-cli", "log_level": 0}


@dataclass(frozen=True)
class Target:
    """A broker and the prefix of the topics' names on it."""

    settings: ServiceSettings

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return self.settings.kafka_bootstrap_servers

    @property
    def prefix(self) -> str:
        """Before every topic's name."""
        return self.settings.topic_prefix

    def topic(self, name: str) -> str:
        """The name on the broker of a declared topic."""
        return kafka.Names(self.prefix).topic(name)

    @cached_property
    def claims(self) -> Claims:
        """The claim check, its store as PENSTOCK_CLAIM_STORE says; raises ConfigurationError."""
        return Claims.open(
            self.settings.claim_store,
            threshold=self.settings.claim_threshold_bytes,
            most=self.settings.claim_max_bytes,
        )

    @property
    def admin_options(self) -> dict[str, Any]:
        """What an admin client needs."""
        return {**kafka.common(self.settings), **_QUIET}

    def reach(self) -> None:
        """Raises NoBroker where no broker answers, ConfigurationError where it does not let us in."""
        try:
            access.reach(self.settings, ANSWER_LIMIT_S)
        except KafkaException as error:
            raise NoBroker(self._silent(error)) from None

    def partitions(self, name: str) -> list[int]:
        """The partitions of a declared topic; raises as `reach`, or CommandError where there is none."""
        topic = self.topic(name)
        self.reach()
        try:
            found = AdminClient(self.admin_options).list_topics(topic, timeout=ANSWER_LIMIT_S).topics[topic]
        except KafkaException as error:
            raise NoBroker(self._silent(error)) from None
        if found.error is not None and found.error.code() in access.NOT_AUTHORIZED:
            raise KafkaException(found.error)
        if found.error is not None or not found.partitions:
            raise CommandError(
                f"topic {topic} is not there on {self.bootstrap}; create it with `penstock topics apply` "
                "or give the prefix in use with --prefix"
            )
        return sorted(found.partitions)

    def _silent(self, error: KafkaException) -> str:
        return (
            f"no Kafka broker answers at {self.bootstrap} within {ANSWER_LIMIT_S:.0f} s "
            f"({error.args[0].name()}); start one with `penstock up`, or name another with --bootstrap"
        )

    def producer(self) -> Producer:
        """An idempotent producer."""
        return Producer({**kafka.producer(self.settings, None), **_QUIET})

    def transactional(self, name: str) -> Producer:
        """A producer under the transactional id `<prefix>penstock-NAME`, not yet initialized."""
        config = kafka.producer(self.settings, f"{self.prefix}penstock-{name}")
        return Producer({**config, **_QUIET})

    def reader(self) -> Consumer:
        """A read_committed consumer outside any group, to be assigned."""
        config = kafka.reader(self.settings, f"penstock-cli-{uuid.uuid4().hex[:12]}")
        return Consumer({**config, **_QUIET, "queued.max.messages.kbytes": 65_536})


@dataclass(frozen=True, slots=True)
class Bounds:
    """The first offset of a partition and the one after its last, at one moment."""

    low: int
    high: int


def bounds(reader: Consumer, topic: str, partitions: list[int]) -> dict[int, Bounds]:
    """The offsets that there are now; raises NoBroker."""
    found = {}
    for number in partitions:
        try:
            low, high = reader.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_LIMIT_S)
        except KafkaException as error:
            raise NoBroker(
                f"the broker did not say within {ANSWER_LIMIT_S:.0f} s where {topic} ends ({error.args[0].name()}); "
                "look at `penstock status`"
            ) from None
        found[number] = Bounds(low, high)
    return found


def resolve(bootstrap: str | None, prefix: str | None) -> Target:
    """The target of a command; raises NoBroker where nothing says which broker."""
    if bootstrap is None:
        state = StateFolder.configured().load()
        if state is None:
            raise NoBroker(
                "no broker address: bring the local stack up with `penstock up`, or give --bootstrap HOST:PORT "
                "(or PENSTOCK_KAFKA_BOOTSTRAP_SERVERS)"
            )
        bootstrap = state.broker.address
        prefix = state.prefix if prefix is None else prefix
    return Target(settings_for(bootstrap, prefix or ""))


def settings_for(bootstrap: str, prefix: str) -> ServiceSettings:
    """The services' shared settings for this address and prefix; a bad one is a usage error that names it."""
    try:
        return ServiceSettings(kafka_bootstrap_servers=bootstrap, topic_prefix=prefix)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        known = {
            "kafka_bootstrap_servers": "--bootstrap: expected HOST:PORT[,HOST:PORT...]",
            "topic_prefix": "--prefix: expected at most 64 letters, digits and . _ -",
        }
        sentence = known.get(field) or "\n".join(sentences_of(ServiceSettings, dict(first)))
        raise typer.BadParameter(sentence) from None
