"""Ending a service with SIGKILL at a bad moment, and starting it again.

A kill is either *random* (some time after the service was seen at work) or *aimed*: the process is
halted the moment its output shows records that are not committed yet, and is killed if that is still so
while it stands still. A halted process that had already asked for the commit is let go on, and the next
moment is waited for. With transactions such records are those of an open one; without, those whose
input's offset the group has not committed.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass

from confluent_kafka import Message
from tests.support.kafka import Ends, committed_offsets
from tests.support.stack import Stack

from penstock.contracts import topics
from penstock.contracts.lanes import LANES

HOPS = {
    "preprocess": ((topics.REQUESTS, topics.PREPROCESSED),),
    "anonymize": ((topics.PREPROCESSED, topics.ANONYMIZED),),
    "safety": ((topics.ANONYMIZED, topics.SCREENED), (topics.COMPLETIONS, topics.SCREENED_COMPLETIONS)),
    "inference": ((topics.SCREENED, topics.COMPLETIONS),),
    "postprocess": ((topics.SCREENED_COMPLETIONS, topics.RESULTS),),
}
PATHS = {
    service: tuple(
        (topics.in_lane(read, lane), topics.in_lane(written, lane)) for read, written in hops for lane in LANES
    )
    for service, hops in HOPS.items()
}
"""Service -> what it reads and what it writes for it, in both lanes."""
SETTLE_S = 0.1
"""What a halted process has already sent is decided by the broker within this."""


@dataclass(frozen=True)
class Kill:
    """One kill and what it hit."""

    service: str
    aimed: bool
    halfway: bool
    """Whether it was halted between writing its output and committing it."""
    at_work: bool
    """Whether its output had grown since it was looked at."""


class Killer:
    """Kills the services of one stack, which runs with transactions or without."""

    def __init__(self, stack: Stack, chosen: random.Random, *, transactional: bool = True) -> None:
        self._stack = stack
        self._random = chosen
        self._transactional = transactional
        self._ends = {
            service: Ends(stack.bootstrap, stack.prefix, list(dict.fromkeys(written for _, written in paths)))
            for service, paths in PATHS.items()
        }

    def kill(self, service: str, *, aimed: bool, patience_s: float) -> Kill:
        """Kill one service once it is at work, or when patience ends; it stays down."""
        until = time.monotonic() + patience_s
        at_work = self._wait_for_work(self._ends[service], until)
        halfway = False
        if aimed:
            halfway = self._halt_halfway(service, until)
        else:
            time.sleep(self._random.uniform(0, 1))
        self._stack.kill(service)
        return Kill(service, aimed, halfway, at_work)

    @staticmethod
    def _wait_for_work(ends: Ends, until: float) -> bool:
        before = ends.written()
        while time.monotonic() < until:
            if ends.written() > before:
                return True
        return False

    def _halt_halfway(self, service: str, until: float) -> bool:
        ends = self._ends[service]
        before = -1 if self._transactional else ends.written()
        while time.monotonic() < until:
            if self._transactional:
                if not ends.open():
                    continue
            elif (now := ends.written()) == before:
                continue
            else:
                before = now
            if not self._stack.freeze(service):
                return False
            time.sleep(SETTLE_S)
            if ends.open() if self._transactional else self._will_repeat(service):
                return True
            self._stack.thaw(service)
        return False

    def _will_repeat(self, service: str) -> bool:
        """Whether the output holds requests whose input the group has not committed: they will be read again."""
        for read, written in PATHS[service]:
            committed = committed_offsets(self._stack.bootstrap, self._stack.prefix, service, read)
            waiting = {
                request_of(message)
                for message in self._stack.read(read)
                if message.offset() >= committed[message.partition()]
            }
            if any(request_of(message) in waiting for message in self._stack.read(written)):
                return True
        return False


def request_of(message: Message) -> tuple[str, int, int]:
    """Topic, partition and offset of the request that an event or a result is about."""
    value = json.loads(message.value())
    source = value.get("context", value)["source"]
    return source["topic"], source["partition"], source["offset"]
