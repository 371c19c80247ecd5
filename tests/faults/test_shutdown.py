"""SIGTERM under load: each service ends by itself within its time, and nothing is lost or repeated."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.support.kafka import Publishing
from tests.support.stack import SERVICES, Stack, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(600)]

LIMIT_S = 30.0
"""Three times what a container gets: on a busy machine the clock runs while the process waits for its turn."""


def test_services_stop_in_time_under_load_and_lose_nothing(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    def request(number: int) -> Publishing:
        body = json.dumps({"prompt": f"Say hello to guest {number}.", "max_tokens": 8, "request_id": f"s{number}"})
        return Publishing(body.encode(), key=f"k{number % 16}".encode())

    stopped = threading.Event()
    sent = []
    with Stack(bootstrap, prefix, tmp_path) as stack:

        def load() -> None:
            number = 0
            while not stopped.is_set():
                sent.extend(stack.send([request(n) for n in range(number, number + 5)]))
                number += 5
                time.sleep(0.15)

        feeder = threading.Thread(target=load)
        feeder.start()
        took: dict[str, float] = {}
        gently: dict[str, bool] = {}
        try:
            wait_until(lambda: bool(stack.results()), "the first result under load")
            for name in SERVICES:
                began = time.monotonic()
                gently[name] = stack.terminate(name, grace_s=LIMIT_S)
                took[name] = time.monotonic() - began
                stack.launch(name)
                stack.wait_ready([name])
        finally:
            stopped.set()
            feeder.join()
        stack.wait_results(sent, seconds=120)
        seen = Counter(result.id for result in stack.results())

    assert gently == dict.fromkeys(SERVICES, True), took
    assert seen == Counter(f"s{number}" for number in range(len(sent)))
