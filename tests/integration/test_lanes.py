"""Two lanes on a real broker: a bulk backlog holds no interactive request, each lane keeps its order and its sums."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, defaultdict

import pytest
from confluent_kafka import Message
from tests.support.kafka import Publishing
from tests.support.lanes import LaneHarness
from tests.support.stack import SERVICES, Stack, wait_until
from tests.support.toy import Toy, ids_of

from penstock.contracts import topics
from penstock.contracts.events import RequestAnonymized, RequestPreprocessed
from penstock.runtime.gate import Gate
from penstock.runtime.stage import Inbound

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
BULK_OUT = topics.in_lane(topics.ANONYMIZED, "bulk")


@pytest.fixture
def harness(bootstrap: str, prefix: str) -> LaneHarness:
    return LaneHarness(bootstrap, prefix)


def request_of(inbound: Inbound) -> str:
    return inbound.expect(RequestPreprocessed).context.request_id


def by_key(messages: list[Message]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = defaultdict(list)
    for message in messages:
        found[message.key()].append(RequestAnonymized.model_validate_json(message.value()).context.request_id)
    return found


def test_interactive_requests_come_through_while_a_bulk_backlog_stands_still(harness: LaneHarness) -> None:
    """The first bulk record does not return until an interactive one has: without lanes this never ends."""
    arrived, held = threading.Event(), threading.Event()

    def act(inbound: Inbound) -> None:
        if request_of(inbound).startswith("bulk"):
            held.set()
            assert arrived.wait(60)

    bulk = [f"bulk{number}" for number in range(200)]
    harness.publish(bulk, lane="bulk")
    with harness.both(Toy(act)):
        assert held.wait(60)
        harness.publish(["now"])
        assert ids_of(harness.read(topics.ANONYMIZED, 1)) == Counter(["now"])
        arrived.set()
        assert ids_of(harness.read(BULK_OUT, len(bulk))) == Counter(bulk)


def test_bulk_goes_on_while_interactive_work_never_ends(harness: LaneHarness) -> None:
    """The minimum share: an interactive record stays in work until every bulk record is through."""
    done, held = threading.Event(), threading.Event()

    def act(inbound: Inbound) -> None:
        if request_of(inbound) == "endless":
            held.set()
            assert done.wait(120)

    harness.publish(["endless"])
    bulk = [f"b{number}" for number in range(300)]
    with harness.both(Toy(act)):
        assert held.wait(60)
        harness.publish(bulk, lane="bulk")
        assert ids_of(harness.read(BULK_OUT, len(bulk))) == Counter(bulk)
        done.set()
        assert ids_of(harness.read(topics.ANONYMIZED, 1)) == Counter(["endless"])


def test_order_holds_for_each_key_within_a_lane(harness: LaneHarness) -> None:
    sent: dict[str, dict[bytes, list[str]]] = {}
    for lane in ("interactive", "bulk"):
        sent[lane] = {f"talk{k}".encode(): [f"{lane}-{k}-{number}" for number in range(60)] for k in range(5)}
        for number in range(60):
            for key, ids in sent[lane].items():
                harness.publish([ids[number]], conversation=key.decode(), lane=lane, flush=False)
        harness.flush()
    with harness.both(Toy()):
        for lane, topic in (("interactive", topics.ANONYMIZED), ("bulk", BULK_OUT)):
            assert by_key(harness.read(topic, 300)) == sent[lane]


def test_the_lanes_of_a_process_share_state_and_each_commits_its_own(harness: LaneHarness) -> None:
    first = harness.store()
    harness.publish(["a", "b"], conversation="interactive-talk")
    harness.publish(["c", "d", "e"], conversation="bulk-talk", lane="bulk")
    with harness.both(Toy(state=first), states=[first]):
        assert len(harness.read(topics.ANONYMIZED, 2)) == 2
        assert len(harness.read(BULK_OUT, 3)) == 3
        wait_until(lambda: first.get("bulk-talk") == "3", "the bulk lane's write in the interactive lane's view")
        assert first.get("interactive-talk") == "2"
    second = harness.store()
    second.start()
    assert (second.get("interactive-talk"), second.get("bulk-talk")) == ("2", "3")
    second.close()


def test_both_lanes_of_the_five_services(stack: Stack) -> None:
    good = json.dumps({"prompt": "What is a river?", "max_tokens": 4}).encode()
    sent = {
        "interactive": stack.send([Publishing(good)] * 4),
        "bulk": stack.send([Publishing(good, lane="bulk")] * 4 + [Publishing(b"not JSON", lane="bulk")]),
        "header": stack.send([Publishing(good, [("priority", b"bulk")])] * 2),
    }
    found = stack.wait_results([place for places in sent.values() for place in places])
    statuses = {name: Counter((found[p].status, found[p].priority) for p in places) for name, places in sent.items()}
    assert statuses == {
        "interactive": Counter({("completed", "interactive"): 4}),
        "bulk": Counter({("completed", "bulk"): 4, ("failed", "bulk"): 1}),
        "header": Counter({("completed", "bulk"): 2}),
    }
    for event in topics.EVENTS:
        carried = Counter(dict(m.headers())["priority"] for m in stack.read(topics.in_lane(event, "bulk")))
        assert carried.keys() == {b"bulk"}
        assert b"bulk" not in {dict(m.headers())["priority"] for m in stack.read(event)}
    for service in SERVICES:
        assert re.search(r'penstock_records_in_total\{[^}]*topic="[^"]*\.bulk"', stack.metrics(service)), service


def test_the_gate_is_what_lets_interactive_records_between(harness: LaneHarness) -> None:
    """By a clock that only bulk work moves, bulk is never due again while an interactive record is in work."""
    order: list[str] = []
    begun = threading.Event()
    clock = [0.0]

    def act(inbound: Inbound) -> None:
        name = request_of(inbound)
        order.append(name)
        if name.startswith("bulk"):
            begun.set()
            clock[0] += 1.0
            threading.Event().wait(0.02)
        else:
            threading.Event().wait(0.5)
            order.append("end")

    bulk = [f"bulk{number}" for number in range(150)]
    gate = Gate(share=0.1, quiet_s=0, slice_s=0.001, stopping=harness.stopping, clock=lambda: clock[0])
    with harness.both(Toy(act), gate=gate):
        harness.publish(bulk, lane="bulk")
        assert begun.wait(60)
        harness.publish(["interactive"])
        assert len(harness.read(topics.ANONYMIZED, 1)) == 1
        assert ids_of(harness.read(BULK_OUT, len(bulk))) == Counter(bulk)
    assert order.index("interactive") < order.index(bulk[-1])
    between = order[order.index("interactive") + 1 : order.index("end")]
    assert len(between) <= 1, "more than the slice that was under way"
