"""`penstock up`, `status`, `demo`, `trace` and `down` for real: broker, viewer and five services as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.watching import Inside, Watch

from penstock.cli.services import SERVICES
from penstock.cli.state import StackState, StateFolder
from penstock.local.jars import cache_dir
from penstock.local.root import project_root

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

WATCHED_S = 30.0


@dataclass
class Command:
    """The command with a state folder of its own."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        dropped = ("PENSTOCK_", "OTEL_", "XDG_", "ORT_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        # the jars' cache is the machine's, not the test's
        kept["PENSTOCK_CACHE"] = str(cache_dir())
        environment = {**kept, "PENSTOCK_STATE_DIR": str(self.folder), **self.extra}
        command = [sys.executable, "-m", "penstock.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)

    def state(self) -> StackState:
        state = StateFolder(self.folder).load()
        assert state is not None
        return state

    def ports(self) -> set[int]:
        """Those of the stack's components, as far as it is up."""
        state = StateFolder(self.folder).load()
        if state is None:
            return set()
        found = {service.port for service in state.services.values()}
        for backing in (state.broker, state.viewer):
            found |= {int(port) for port in re.findall(r":(\d+)\b", backing.address if backing is not None else "")}
        properties = self.folder / "broker" / "server.properties"
        listeners = re.findall(r"^listeners=.*", properties.read_text() if properties.exists() else "", re.MULTILINE)
        return found | {int(port) for line in listeners for port in re.findall(r":(\d+)\b", line)}

    def processes(self) -> dict[int, str]:
        """Pid -> command line of every process that this state folder's name was given to."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes()
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile, or is not ours to read
            if f"PENSTOCK_STATE_DIR={self.folder}\0".encode() in environment and line:
                found[int(entry.name)] = line.replace(b"\0", b" ").decode()
        return found


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Inside:
    """Notes of all Python processes of the stack, with a home folder that nothing else writes to."""
    allowed = (project_root(), Path(sys.prefix), tmp_path_factory.getbasetemp())
    return Inside(tmp_path_factory.mktemp("watch") / "notes.jsonl", tmp_path_factory.mktemp("home"), allowed)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, inside: Inside) -> Command:
    """The command, with its stack not yet up."""
    return Command(tmp_path_factory.mktemp("state"), inside.environment)


@pytest.fixture(scope="module")
def watch(command: Command, inside: Inside) -> Iterator[Watch]:
    """All processes of the stack, the command's own and those that it has started, from before they start."""
    with Watch(command.processes, command.ports, allowed=(*inside.allowed, cache_dir())) as watch:
        yield watch


@pytest.fixture(scope="module")
def penstock(command: Command, watch: Watch) -> Iterator[Command]:
    """The command with its stack up, without containers."""
    try:
        done = command("up", "--no-docker", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["started"] == ["broker", "viewer", *SERVICES]
        yield command
    finally:
        ended = command("down", "--delete-data")
    assert ended.returncode == 0, ended.stderr
    assert command.processes() == {}
    assert not (command.folder / "broker").exists()
    assert not (command.folder / "state.json").exists()


def status(penstock: Command) -> dict[str, Any]:
    found = json.loads(penstock("status", "--json").stdout)
    assert isinstance(found, dict)
    return found


def test_everything_is_up_and_ready(penstock: Command) -> None:
    done = penstock("status")
    assert done.returncode == 0, done.stdout
    described = status(penstock)
    assert described["ok"]
    assert [one["name"] for one in described["components"]] == ["broker", "viewer", *SERVICES]
    for name in SERVICES:
        assert (penstock.folder / "logs" / f"{name}.log").stat().st_size > 0


def test_only_two_services_are_given_the_vaults_key(penstock: Command) -> None:
    key_file = penstock.folder / "vault-key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    key = key_file.read_bytes().strip()
    holders = {
        name
        for name, service in penstock.state().services.items()
        if key in Path(f"/proc/{service.pid}/environ").read_bytes()
    }
    assert holders == {"anonymize", "postprocess"}


def test_a_second_up_starts_nothing(penstock: Command) -> None:
    before = penstock.state()
    done = penstock("up", "--no-docker")
    assert done.returncode == 0, done.stderr
    assert "the stack was up already" in done.stdout
    assert penstock.state() == before


def test_up_starts_only_what_died(penstock: Command) -> None:
    before = penstock.state()
    os.kill(before.services["inference"].pid, signal.SIGKILL)
    down = penstock("status", "--json")
    assert down.returncode == 1
    states = {one["name"]: one["running"] for one in json.loads(down.stdout)["components"]}
    assert [name for name, runs in states.items() if not runs] == ["inference"]
    done = penstock("up", "--no-docker", "--json")
    assert json.loads(done.stdout)["started"] == ["inference"], done.stderr
    after = penstock.state()
    assert {name for name in SERVICES if after.services[name] != before.services[name]} == {"inference"}
    assert status(penstock)["ok"]


def test_the_samples_end_as_expected_and_one_can_be_traced(penstock: Command) -> None:
    done = penstock("demo", "--no-docker")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "only sending the samples again" in done.stdout
    assert "every sample ended as expected" in done.stdout
    link = next(line.split()[-1] for line in done.stdout.splitlines() if "one request's trace" in line)
    request_id = next(line.split()[-1] for line in done.stdout.splitlines() if "the same here" in line)
    assert link.startswith(str(status(penstock)["viewer"]))
    until = time.monotonic() + 90
    while True:
        traced = penstock("trace", request_id, "--json")
        spans = json.loads(traced.stdout)["spans"] if traced.returncode == 0 else []
        if len(spans) >= 14:
            break
        assert time.monotonic() < until, traced.stdout + traced.stderr
    services = {span["service"] for span in spans}
    assert services == {"penstock-cli", *(f"penstock-{name}" for name in SERVICES)}
    parents = {span["span_id"]: span for span in spans}
    assert sum(span["parent_id"] not in parents for span in spans) == 1
    drawn = penstock("trace", request_id)
    assert "send llm.requests" in drawn.stdout
    assert link in drawn.stdout


def _mend(penstock: Command) -> None:
    """Start again what ended by the client's own fault as the broker came back (librdkafka's issue 5280)."""
    time.sleep(3)
    ended = [name for name, service in penstock.state().services.items() if not service.identity.alive()]
    if ended:
        done = penstock("up", "--no-docker", "--json")
        assert json.loads(done.stdout)["started"] == ended, done.stderr


def test_a_killed_broker_comes_back_where_it_was_and_requests_go_on(penstock: Command, tmp_path: Path) -> None:
    before = penstock.state()
    identity = json.loads((penstock.folder / "broker" / "broker.pid.json").read_text(encoding="utf-8"))
    os.kill(int(identity["pid"]), signal.SIGKILL)
    done = penstock("up", "--no-docker", "--json")
    assert json.loads(done.stdout)["started"][:1] == ["broker"], done.stderr
    assert penstock.state().broker == before.broker
    _mend(penstock)
    file = tmp_path / "after.jsonl"
    file.write_text('{"prompt": "What is Kafka?", "max_tokens": 8}\n', encoding="utf-8")
    sent = penstock("send", str(file), "--wait", "--timeout", "90s", "--json")
    assert sent.returncode == 0, sent.stdout + sent.stderr


def test_up_for_another_broker_or_prefix_is_refused(penstock: Command) -> None:
    for option, value in (("--bootstrap", "127.0.0.1:1"), ("--prefix", "other.")):
        done = penstock("up", option, value)
        assert done.returncode == 1
        assert "penstock down" in done.stderr


def test_a_failed_up_shows_why_and_leaves_nothing_behind(penstock: Command, tmp_path: Path) -> None:
    other = Command(tmp_path / "state", {"PENSTOCK_SAFETY_POLICY": "/no/such/policy.yaml"})
    named = ("--bootstrap", penstock.state().broker.address, "--prefix", "failing.")
    done = other("up", "--no-viewer", *named)
    assert done.returncode == 1
    assert "safety ended while starting" in done.stderr
    assert "PENSTOCK_SAFETY_POLICY" in done.stderr
    assert other.processes() == {}
    assert not (other.folder / "state.json").exists()
    assert status(penstock)["ok"]


def test_down_leaves_a_broker_alone_that_was_only_named(penstock: Command, tmp_path: Path) -> None:
    other = Command(tmp_path / "state")
    done = other("up", "--no-viewer", "--bootstrap", penstock.state().broker.address, "--prefix", "second.")
    assert done.returncode == 0, done.stderr
    assert len(other.processes()) == len(SERVICES)
    ended = other("down")
    assert ended.returncode == 0, ended.stderr
    assert "left alone" in ended.stdout
    assert other.processes() == {}
    assert status(penstock)["ok"]
    assert "nothing to end" in other("down").stdout


def test_nothing_calls_home_or_writes_there(penstock: Command, watch: Watch, inside: Inside) -> None:
    """Every process of the stack, from its start and through all that the tests above did with it."""
    time.sleep(max(0.0, WATCHED_S - watch.seconds))
    lines = "\n".join(watch.seen)
    expected = [f"-m penstock_{name}" for name in SERVICES] + ["-m penstock.cli", "kafka.Kafka", "zipkin"]
    assert [name for name in expected if name not in lines] == []
    assert all(watch.seen[line] for line in watch.seen if "-m penstock_" in line)
    assert watch.strays() == []
    assert inside.strays(watch.ports) == []
    noted = {note["program"].split("/")[-2] for note in inside.notes() if note["what"] == "connect"}
    assert noted >= {"cli", *(f"penstock_{name}" for name in SERVICES)}
