"""What a replay has of its own on the broker: its topics, its group, and the manifest that says they are its own.

The manifest is the one record of `<prefix>penstock.replay`. It is written before any other topic is made, so
that whatever an interrupted replay leaves can be found by it. Nothing is deleted that it does not name.
Running a replay is left to `replay_run`.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import Future
from typing import Literal

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.cli.errors import CommandError, NoBroker, NotFound
from penstock.cli.reading import scan
from penstock.cli.target import ANSWER_LIMIT_S, Target
from penstock.contracts.topics import load_topics
from penstock.runtime import topics
from penstock.runtime.kafka import Names

MARKER = "penstock.replay"
_PREFIX = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_LIMIT_S = 60.0


class Span(BaseModel):
    """The offsets of one partition that may hold records of the window; `end` is not among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    """The declared name."""
    partition: int
    start: int
    end: int


class Manifest(BaseModel):
    """What is replayed, and what was made for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    release: str
    created_ms: int
    live_prefix: str
    stage: str
    inputs: tuple[str, ...]
    """Declared names."""
    from_ms: int
    to_ms: int
    """The window: timestamps from `from_ms`, and before `to_ms`."""
    spans: tuple[Span, ...]
    partitions: int
    """Of every topic of the replay."""
    tenants: tuple[str, ...] = ()
    limit: int | None = None
    settings: dict[str, str] = {}
    """Variables of the stage that the replay sets."""
    digests: dict[str, str] = {}
    """Variable -> SHA-256 of the file that it names."""
    topics: tuple[str, ...]
    """As the broker names them."""


class Replays:
    """The replay under one prefix of a broker: reading, making and deleting what it has there."""

    def __init__(self, live: Target, into: str) -> None:
        self.live = live
        self.own = Target(live.settings.model_copy(update={"topic_prefix": into}))
        self._admin = AdminClient({"bootstrap.servers": live.bootstrap, **live.admin_options})

    @property
    def prefix(self) -> str:
        """Before the name of everything that is the replay's."""
        return self.own.prefix

    def topic_names(self) -> tuple[str, ...]:
        """The topics that a replay makes, the manifest's not among them."""
        return tuple(self.own.topic(topic.name) for topic in load_topics())

    def present(self) -> set[str]:
        """Of the replay's topics those that there are; raises NoBroker."""
        try:
            found = self._admin.list_topics(timeout=ANSWER_LIMIT_S).topics
        except KafkaException as error:
            raise NoBroker(
                f"no Kafka broker answers at {self.live.bootstrap} within {ANSWER_LIMIT_S:.0f} s "
                f"({error.args[0].name()}); start one with `penstock up`, or name another with --bootstrap"
            ) from None
        return set(found) & {*self.topic_names(), self.own.topic(MARKER)}

    def manifest(self) -> Manifest | None:
        """What the replay under this prefix is; None where there is none or it was interrupted before it began."""
        if self.own.topic(MARKER) not in self.present():
            return None
        records = list(scan(self.own, MARKER))
        if not records:
            return None
        try:
            return Manifest.model_validate_json(records[-1].value or b"")
        except ValidationError as error:
            raise CommandError(
                f"{self.own.topic(MARKER)} holds no manifest of this release ({error.error_count()} fields do not "
                "fit); remove the replay with the release that made it"
            ) from None

    def demand(self) -> Manifest:
        """The manifest; raises NotFound where there is no replay under this prefix."""
        found = self.manifest()
        if found is None:
            raise NotFound(
                f"no replay under the prefix {self.prefix!r} on {self.live.bootstrap}; "
                "start one with `penstock replay --into`, with --stage and --from"
            )
        return found

    def refuse_taken(self) -> None:
        """Raises CommandError where a topic of the replay is there already."""
        there = self.present()
        if self.own.topic(MARKER) in there:
            raise CommandError(
                f"there is a replay under {self.prefix!r}: go on with it with --resume, replace it with --overwrite, "
                f"or delete it with `penstock replay --remove {self.prefix}`"
            )
        if there:
            raise CommandError(
                f"topic {sorted(there)[0]} is there and no replay made it: choose another prefix for --into"
            )

    def make(self, manifest: Manifest) -> None:
        """Write the manifest, then make the topics; raises CommandError where another replay was faster."""
        marker = NewTopic(
            self.own.topic(MARKER), num_partitions=1, replication_factor=-1, config={"retention.ms": "-1"}
        )
        try:
            self._admin.create_topics([marker], operation_timeout=topics.TIMEOUT_S)[marker.topic].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raise CommandError(f"another replay into {self.prefix!r} was started meanwhile") from None
            raise
        failures: list[KafkaError] = []
        producer = self.own.producer()
        producer.produce(
            marker.topic,
            manifest.model_dump_json().encode(),
            on_delivery=lambda error, _: failures.append(error) if error is not None else None,
        )
        if producer.flush(_LIMIT_S) or failures:
            raise CommandError(
                f"the manifest could not be written to {marker.topic}; remove what there is with "
                f"`penstock replay --remove {self.prefix}`"
            )
        self.complete(manifest)

    def complete(self, manifest: Manifest) -> None:
        """Make those of the replay's topics that are missing."""
        topics.apply(self.own.bootstrap, self.prefix, options=self.own.admin_options, partitions=manifest.partitions)

    def remove(self) -> list[str]:
        """Delete what the manifest names, itself last; the names of the topics deleted. The stage must have ended.

        Raises NotFound where there is no replay.
        """
        marker = self.own.topic(MARKER)
        there = self.present()
        if marker not in there:
            self.demand()
        manifest = self.manifest()
        named = [] if manifest is None else [name for name in manifest.topics if name in there]
        if manifest is not None:
            for group in self._groups(manifest.stage):
                self._delete_group(group)
        self._delete(named)
        self._delete([marker])
        return [*named, marker]

    def committed(self, stage: str) -> dict[tuple[str, int], int]:
        """Topic on the broker and partition -> how far the stage's groups have come."""
        found: dict[tuple[str, int], int] = {}
        for group in self._groups(stage):
            asked = ConsumerGroupTopicPartitions(group)
            answer = self._admin.list_consumer_group_offsets([asked], require_stable=True)[group].result()
            for part in answer.topic_partitions:
                place = (part.topic, part.partition)
                found[place] = max(found.get(place, 0), part.offset)
        return found

    def _groups(self, stage: str) -> list[str]:
        """The stage's groups, one for each lane."""
        stem = Names(self.prefix).group(stage)
        listed = self._admin.list_consumer_groups(request_timeout=ANSWER_LIMIT_S).result().valid
        return sorted(one.group_id for one in listed if one.group_id == stem or one.group_id.startswith(f"{stem}-"))

    def _delete(self, names: list[str]) -> None:
        if not names:
            return
        for future in self._admin.delete_topics(names, operation_timeout=_LIMIT_S).values():
            _tolerate(future, KafkaError.UNKNOWN_TOPIC_OR_PART)
        until = time.monotonic() + _LIMIT_S
        while left := self.present() & set(names):  # a topic of the same name cannot be made before it is gone
            if time.monotonic() > until:
                raise CommandError(f"{sorted(left)[0]} is still there after {_LIMIT_S:.0f} s; try again later")
            time.sleep(0.05)

    def _delete_group(self, group: str) -> None:
        until = time.monotonic() + _LIMIT_S
        while True:
            try:
                for future in self._admin.delete_consumer_groups([group]).values():
                    _tolerate(future, KafkaError.GROUP_ID_NOT_FOUND)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NON_EMPTY_GROUP:
                    raise
                if time.monotonic() > until:
                    raise CommandError(
                        f"the group {group} still has members: end the replay that runs into {self.prefix!r}, "
                        "wherever it was started, then try again"
                    ) from None
                time.sleep(0.5)  # a process that was killed is a member until its session times out
            else:
                return


def _tolerate(future: Future[None], code: int) -> None:
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() != code:
            raise


def check_prefix(into: str, live: str) -> str | None:
    """Why a replay cannot have this prefix beside a live installation; None where it can."""
    if not _PREFIX.match(into):
        return "expected 1 to 64 letters, digits and . _ -"
    if into == live:
        return f"{into!r} is the prefix of the live topics: a replay has topics of its own"
    names = {topic.name for topic in load_topics()}
    if {into + name for name in (*names, MARKER)} & {live + name for name in names}:
        return f"topics under {into!r} would have the names of live ones"
    return None
