"""`penstock.runtime.health`: alive, ready and metrics over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock.contracts.events import Priority
from penstock.runtime.health import STALLED_AFTER_S, Health, HealthServer, JoinedHealth
from penstock.runtime.metrics import StageMetrics


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0, health, StageMetrics("toy").exposition)
    server.start()
    yield server
    server.stop()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def get_json(server: HealthServer, path: str) -> tuple[int, Any]:
    status, body = get(server, path)
    return status, json.loads(body)


def test_alive_while_the_loop_turns(server: HealthServer, health: Health, clock: Clock) -> None:
    assert get_json(server, "/healthz") == (200, {"alive": True})
    clock.now += STALLED_AFTER_S
    assert get_json(server, "/healthz") == (503, {"alive": False})
    health.beat()
    assert get_json(server, "/healthz?x=1") == (200, {"alive": True})


def test_ready_or_why_not(server: HealthServer, health: Health) -> None:
    assert get_json(server, "/readyz") == (503, {"ready": False, "why": "starting"})
    health.why_not = "waiting for the broker"
    assert get_json(server, "/readyz")[1]["why"] == "waiting for the broker"
    health.ready = True
    assert get_json(server, "/readyz") == (200, {"ready": True})


def test_metrics_are_served_as_text(server: HealthServer) -> None:
    status, body = get(server, "/metrics")
    assert status == 200
    assert 'penstock_records_in_flight{stage="toy"} 0.0' in body


def test_another_path_says_which_there_are(server: HealthServer) -> None:
    assert get_json(server, "/")[0] == 404
    assert "/readyz" in get(server, "/secrets")[1]


def test_a_taken_port_is_a_sentence_that_names_the_setting(health: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"PENSTOCK_HTTP_PORT: cannot listen on 127.0.0.1:{port}"):
            HealthServer("127.0.0.1", port, health, lambda: b"")


def test_two_loops_are_alive_and_ready_where_both_are(clock: Clock) -> None:
    parts: dict[Priority, Health] = {"interactive": Health(clock), "bulk": Health(clock)}
    joined = JoinedHealth(parts)
    assert (joined.alive, joined.ready, joined.why_not) == (True, False, "starting")
    parts["interactive"].ready = True
    assert (joined.ready, joined.why_not) == (False, "bulk: starting")
    parts["bulk"].ready = True
    assert joined.ready
    clock.now += STALLED_AFTER_S
    parts["interactive"].beat()
    assert not joined.alive
    parts["bulk"].beat()
    assert joined.alive
