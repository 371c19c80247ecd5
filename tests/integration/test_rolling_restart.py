"""Services of two neighbouring releases side by side: while one instance after another changes its release, no
record is lost, doubled or refused, whichever of them wrote it and whichever reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from tests.support.kafka import read_all
from tests.support.neighbours import FORMER, NEXT, NORTH, REGION, Neighbour
from tests.support.stack import wait_until
from tests.support.toy import Harness, ids_of

from penstock.contracts.headers import DEAD_LETTER, RETRY_OF, SCHEMA
from penstock.contracts.topics import ANONYMIZED, DEAD_LETTERS, RESULTS, RETRY_SAFETY, SCREENED

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

FIRST, SECOND = "anonymize", "safety"
BATCH = 20


class Roll:
    """Two services of two instances each, and the records that were sent through them."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        self._where = (bootstrap, prefix)
        self._folder = folder
        self._harness = Harness(bootstrap, prefix)
        self._instances: dict[tuple[str, str], Neighbour] = {}
        self.sent: list[str] = []

    def start(self, service: str, instance: str, release: str) -> None:
        one = Neighbour(self._where, self._folder, service, instance, release)
        self._instances[service, instance] = one.start()

    def stop(self, service: str, instance: str) -> None:
        self._instances.pop((service, instance)).stop()

    def end(self) -> None:
        with ExitStack() as ending:
            for one in self._instances.values():
                ending.callback(one.stop)

    def send(self) -> None:
        number = len(self.sent)
        ids = [f"{'late' if at % 5 == 0 else 'plain'}-{at}" for at in range(number, number + BATCH)]
        self._harness.publish(ids)
        self.sent += ids

    def wait(self) -> None:
        """Until all that was sent has come through."""
        wait_until(self._through, f"{len(self.sent)} records passed on")

    def _through(self) -> bool:
        found = self.read(SCREENED, DEAD_LETTERS)
        letters = [dict(message.headers()).get(DEAD_LETTER) for message in found]
        assert not any(letters), letters
        return set(ids_of(found)) >= set(self.sent)

    def read(self, *names: str) -> list[Message]:
        return read_all(*self._where, *names)


@pytest.fixture
def roll(bootstrap: str, prefix: str, tmp_path: Path) -> Iterator[Roll]:
    roll = Roll(bootstrap, prefix, tmp_path)
    try:
        yield roll
    finally:
        roll.end()


def makers(message: Message) -> tuple[str | None, ...]:
    """The releases of the two services that made an event; None where the second has not seen it."""
    versions = json.loads(message.value())["context"]["versions"]
    return versions[FIRST], versions.get(SECOND)


def added(message: Message) -> tuple[int, Any, bytes | None]:
    """Of an event: its version, the added field and the added header."""
    carried = dict(message.headers())
    version = int(carried[SCHEMA].decode().rpartition("/")[2])
    return version, json.loads(message.value()).get(REGION), carried.get(REGION)


def test_neighbouring_releases_run_side_by_side(roll: Roll) -> None:
    # the worst order: who writes is a release ahead of who reads
    for instance in "01":
        roll.start(FIRST, instance, NEXT)
        roll.start(SECOND, instance, FORMER)
    roll.send()
    roll.wait()
    # then one instance after another goes back, or on, while records keep coming
    for instance in "01":
        roll.stop(FIRST, instance)
        roll.stop(SECOND, instance)
        roll.send()
        roll.start(FIRST, instance, FORMER)
        roll.start(SECOND, instance, NEXT)
        roll.send()
        roll.wait()
    roll.send()
    roll.wait()
    roll.end()

    screened = roll.read(SCREENED)
    assert ids_of(screened) == dict.fromkeys(roll.sent, 1)
    assert roll.read(DEAD_LETTERS, RESULTS) == []
    # what each release adds is on what it wrote: an older reader leaves it out, an older writer's readers go without
    expected = {
        (NEXT, FORMER): (1, None, None),
        (NEXT, NEXT): (2, NORTH, NORTH.encode()),
        (FORMER, NEXT): (2, None, NORTH.encode()),
        (FORMER, FORMER): (1, None, None),
    }
    seen = {makers(message) for message in screened}
    assert {(NEXT, FORMER), (FORMER, NEXT)} <= seen
    for message in screened:
        assert added(message) == expected[makers(message)]
    # a record that waits is kept as it was written, whichever release delays it or puts it back
    between = roll.read(ANONYMIZED)
    back = [message for message in between if RETRY_OF in dict(message.headers())]
    late = [one for one in roll.sent if one.startswith("late")]
    assert ids_of(back) == ids_of(roll.read(RETRY_SAFETY)) == dict.fromkeys(late, 1)
    assert {makers(message)[0] for message in back} == {FORMER, NEXT}
    for message in between:
        writer, _ = makers(message)
        assert added(message) == ((2, NORTH, NORTH.encode()) if writer == NEXT else (1, None, None))
