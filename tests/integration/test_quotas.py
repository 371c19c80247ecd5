"""Quotas on a broker with TLS, SCRAM and ACLs: a user over its quota is slowed down, another is not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, ThrottleEvent
from tests.support.secured import ADMIN, Secured, run_process
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.contracts import topics as names
from penstock.runtime import acl, kafka, quota_requests, quotas, topics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

PREFIX = "limited."
RATE = 20_000
"""Bytes a second that the limited service may write."""
WINDOW_S = 10
"""Over which a broker takes the rate, by default: so many seconds' worth is free at first."""
RECORDS, RECORD_BYTES = 40, 10_000

Run = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Secured(tmp_path_factory.mktemp("secured")) as secured:
        options = kafka.common(secured.settings(ADMIN, ""))
        secured.create(f"penstock-{party}" for party in acl.PARTIES)
        topics.apply(secured.kafka.bootstrap_servers, PREFIX, replication=1, partitions=1, options=options)
        acl.apply(options, acl.plan(PREFIX))
        yield secured


@pytest.fixture
def run(secured: Secured, tmp_path: Path) -> Iterator[Run]:
    """Runs a quota command as the super user; its status and JSON. No quota is left behind."""
    admin = secured.environment(ADMIN, PREFIX) | {"PENSTOCK_STATE_DIR": str(tmp_path)}

    def run(*arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(app, ["quota", *arguments, "--json"], env=admin)
        return done.exit_code, json.loads(done.stdout)

    yield run
    quotas.remove(secured.settings(ADMIN, ""), quotas.users())


def declared(folder: Path, text: str) -> tuple[str, str]:
    file = folder / "quotas.toml"
    file.write_text(text)
    return "--quotas", str(file)


def write(secured: Secured, party: str) -> tuple[float, float]:
    """Seconds that a party's user takes to write its records, and the seconds that the broker told it to wait."""
    waits: list[float] = []

    def throttled(event: ThrottleEvent) -> None:
        waits.append(event.throttle_time)

    config = kafka.producer(secured.settings(f"penstock-{party}", PREFIX), None)
    producer = Producer({**config, "throttle_cb": throttled, "batch.num.messages": 1, "max.in.flight": 1})
    began = time.monotonic()
    for _ in range(RECORDS):
        # what compresses would be less on the wire
        producer.produce(f"{PREFIX}{names.DEAD_LETTERS}", os.urandom(RECORD_BYTES), b"key", partition=0)
    assert producer.flush(120) == 0
    return time.monotonic() - began, sum(waits)


def test_a_service_over_its_quota_is_slowed_down_and_another_is_not(secured: Secured, run: Run, tmp_path: Path) -> None:
    # of its bytes, those that the window does not give away at first come at the quota's rate
    least_s = (RECORDS * RECORD_BYTES - WINDOW_S * RATE) / RATE / 2
    assert write(secured, "inference")[1] == 0
    status, _ = run("apply", *declared(tmp_path, f"[inference]\nproducer_byte_rate = {RATE}\n"))
    assert status == 0
    took_s, told_s = write(secured, "inference")
    assert took_s >= least_s
    assert told_s >= least_s
    assert write(secured, "safety")[1] == 0
    assert run("remove", "inference")[0] == 0
    assert write(secured, "inference")[1] == 0


def test_quotas_are_applied_once_shown_and_removed(run: Run, tmp_path: Path) -> None:
    assert run("check") == (0, {"ok": True, "quotas": []})
    file = declared(tmp_path, "[upstream]\nproducer_byte_rate = 1000\nrequest_percentage = 12.5\n[safety]\n")
    rate = {"user": "penstock-upstream", "name": "producer_byte_rate", "declared": 1000, "present": None}
    share = {"user": "penstock-upstream", "name": "request_percentage", "declared": 12.5, "present": None}
    assert run("check", *file) == (1, {"ok": False, "quotas": [rate, share]})
    assert run("apply", *file) == (0, {"changed": [rate, share]})
    assert run("apply", *file) == (0, {"changed": []})
    there = [{**rate, "present": 1000.0}, {**share, "present": 12.5}]
    assert run("check", *file) == (0, {"ok": True, "quotas": there})
    # what was taken out of its table goes, and so does what nobody declared of a party that is named
    fewer = declared(tmp_path, "[upstream]\nproducer_byte_rate = 2000\n")
    status, changed = run("apply", *fewer)
    assert (status, [row["declared"] for row in changed["changed"]]) == (0, [2000, None])
    assert run("check")[0] == 1
    status, removed = run("remove", "upstream")
    assert (status, [row["present"] for row in removed["changed"]]) == (0, [2000.0])
    assert run("remove") == (0, {"changed": []})


def test_a_party_that_is_not_named_keeps_its_quotas(secured: Secured, run: Run, tmp_path: Path) -> None:
    admin = secured.settings(ADMIN, "")
    run("apply", *declared(tmp_path, "[operator]\nconsumer_byte_rate = 1000\n"))
    run("apply", *declared(tmp_path, "[upstream]\nconsumer_byte_rate = 2000\n"))
    assert quota_requests.describe(admin) == {
        "penstock-operator": {"consumer_byte_rate": 1000.0},
        "penstock-upstream": {"consumer_byte_rate": 2000.0},
    }


@pytest.mark.parametrize("command", [["check"], ["remove"]])
def test_a_user_who_may_not_alter_the_cluster_is_told(secured: Secured, tmp_path: Path, command: list[str]) -> None:
    environment = secured.environment("penstock-operator", PREFIX) | {"PENSTOCK_STATE_DIR": str(tmp_path)}
    done = run_process("penstock.cli", "quota", *command, environment=environment)
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "does not let the user penstock-operator see or change quotas" in said
    assert "ALTER_CONFIGS" in said
