"""Amounts of several instances on a real broker: restored, added up, never overwritten."""

from __future__ import annotations

import pytest
from tests.support.kafka import settings
from tests.support.stack import wait_until

from penstock.contracts.topics import STATE_BUDGETS
from penstock.runtime import kafka
from penstock.runtime.kafka import Names
from penstock.runtime.state import StateStore
from penstock.runtime.tallies import Tallies

pytestmark = [pytest.mark.broker]


def test_each_instance_finds_its_own_part_again_and_sees_the_others(bootstrap: str, prefix: str) -> None:
    names = Names(prefix)
    shared = settings(bootstrap, prefix)
    stores: list[StateStore] = []

    def started(instance: str) -> Tallies:
        topic = names.topic(STATE_BUDGETS)
        reader = kafka.reader(shared, f"tallies-{instance}", committed=False)
        stores.append(StateStore(topic, reader, 1_000))
        stores[-1].start()
        return Tallies(kafka.producer(shared, None), STATE_BUDGETS, stores[-1], names=names, instance=instance)

    try:
        first, second = started("0"), started("1")
        first.keep("2026-11/total", 1.5)
        second.keep("2026-11/total", 2.25)
        second.keep("2026-11/total", 2.5)
        for one in (first, second):
            one.close()
        wait_until(lambda: first.others("2026-11/total") == 2.5, "the second instance's part")
        again = started("1")
        assert again.own("2026-11/total") == 2.5
        assert again.others("2026-11/total") == 1.5
        assert again.own("2026-12/total") == again.others("2026-12/total") == 0.0
    finally:
        for store in stores:
            store.close()
