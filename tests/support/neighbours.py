"""One of two services in a path, as a process of this release or of a next one; and starting and ending it.

The next release writes version 2 of both services' events, with an optional field and a header that this release
does not know. What an event's makers were, its versions say: service -> "former" or "next". A record whose id begins
with "late" makes the second service wait a second for it, by way of its retry topic.

    python -m tests.support.neighbours anonymize|safety former|next
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.support.retrying import Process

from penstock.contracts import headers, topics
from penstock.contracts.errors import RateLimited
from penstock.contracts.events import Event, RequestAnonymized, RequestContext, RequestPreprocessed, RequestScreened
from penstock.runtime.app import serve
from penstock.runtime.settings import ServiceSettings, load
from penstock.runtime.stage import Inbound, Outcome

FORMER, NEXT = "former", "next"
REGION = "region"
"""The header and the field that the next release adds."""
NORTH = "north"


class NextAnonymized(RequestAnonymized):
    """As the next release has it."""

    schema_version: ClassVar[int] = 2

    region: str | None = None


class NextScreened(RequestScreened):
    """Likewise."""

    schema_version: ClassVar[int] = 2

    region: str | None = None


class First:
    """Stands in for anonymize; the next release sets the new field."""

    name = "anonymize"

    def __init__(self, release: str) -> None:
        self.versions: Mapping[str, str] = {self.name: release}
        self._next = release == NEXT

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        return [self._one(inbound.expect(RequestPreprocessed)) for inbound in batch]

    def _one(self, event: RequestPreprocessed) -> Event:
        kept: dict[str, Any] = {"context": event.context, "prompt": (), "parameters": event.parameters}
        return NextAnonymized(**kept, region=NORTH) if self._next else RequestAnonymized(**kept)


class Second:
    """Stands in for safety; the next release passes the new field on where it is there."""

    name = "safety"

    def __init__(self, release: str) -> None:
        self.versions: Mapping[str, str] = {self.name: release}
        self._next = release == NEXT

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        return [self._one(inbound) for inbound in batch]

    def _one(self, inbound: Inbound) -> Outcome:
        event = inbound.expect(RequestAnonymized)
        if event.context.request_id.startswith("late") and inbound.record.delayed is None:
            return RateLimited("the test says so", retry_after_s=1.0)
        kept: dict[str, Any] = {"context": event.context, "prompt": (), "parameters": event.parameters}
        if not self._next:
            return RequestScreened(**kept)
        assert isinstance(event, NextAnonymized)
        return NextScreened(**kept, region=event.region)


STAGES: Mapping[str, tuple[type[First] | type[Second], str]] = {
    First.name: (First, topics.PREPROCESSED),
    Second.name: (Second, topics.ANONYMIZED),
}


def become_next() -> None:
    """Make this process one of the next release: other events on the topics, another header on each."""
    former = headers.of_event

    def of_event(context: RequestContext, schema: str, source: str, time_iso: str) -> list[tuple[str, bytes | None]]:
        return [*former(context, schema, source, time_iso), (REGION, NORTH.encode())]

    events: Any = topics.EVENTS
    events.update({topics.ANONYMIZED: NextAnonymized, topics.SCREENED: NextScreened})
    headers.of_event = of_event


class Neighbour(Process):
    """One instance of one of the two services, in a release."""

    def __init__(self, where: tuple[str, str], folder: Path, service: str, instance: str, release: str) -> None:
        """`where` is the bootstrap address and the prefix; the log of an instance goes on over its releases."""
        super().__init__(
            *where,
            folder / service,
            instance=instance,
            command=(sys.executable, "-m", "tests.support.neighbours", service, release),
            lanes="interactive",
            retry_in_place_max_ms="0",
            retry_policies="{}",
        )
        (folder / service).mkdir(exist_ok=True)


def main() -> int:
    service, release = sys.argv[1:]
    if release == NEXT:
        become_next()
    stage, reads = STAGES[service]
    return serve(load(ServiceSettings), name=service, consumes=(reads,), build=lambda _: stage(release))


if __name__ == "__main__":
    sys.exit(main())
