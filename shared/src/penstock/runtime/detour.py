"""The way to the one place where requests end, for lanes that are delivered at least once.

A service that repeats a record may end it twice, or end it here and pass it on there. So what ends a request goes
to the topic that postprocess reads, under the request's key: all ends of one request then stand in one partition,
and `penstock.runtime.ends` takes the first of them.
"""

from __future__ import annotations

from typing import Final

from penstock.contracts.events import RequestContext
from penstock.contracts.headers import REDRIVE_OF
from penstock.contracts.topics import REQUESTS, RESULTS, SCREENED_COMPLETIONS, in_lane
from penstock.runtime.kafka import Names
from penstock.runtime.stage import Record

ENDS: Final = SCREENED_COMPLETIONS
"""Where requests of the interactive lane end; no answer stands in what other services write there."""
_ENDS_BULK: Final = in_lane(ENDS, "bulk")


class Detour:
    """What a service does otherwise with its outputs while the interactive lane is delivered at least once."""

    def __init__(self, names: Names) -> None:
        self._bulk = names.topic(in_lane(REQUESTS, "bulk"))

    def topic(self, topic: str, context: RequestContext) -> str:
        """The topic to write to, in place of the one declared for the message.

        A request published to the bulk lane was never repeated and goes its own way. One that was demoted to it
        may have a twin that was not: both end in the same place.
        """
        if topic in (RESULTS, _ENDS_BULK) and context.source.topic != self._bulk:
            return ENDS
        return topic

    def headers(self, record: Record) -> list[tuple[str, bytes | None]]:
        """What an output keeps of its record's headers: a dead letter sent again is to have a result of its own."""
        of = record.named.get(REDRIVE_OF)
        return [] if of is None else [(REDRIVE_OF, of)]
