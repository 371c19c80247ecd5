"""What watches processes catches each thing that it is there for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.watching import Address, Endpoint, Inside, Watch, sockets

from penstock.local.ports import LOOPBACK

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:A1B2 0100007F:2384 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
   2: 0200000A:A1B3 070200C0:01BB 02 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1
   3: 0100007F:A1B2 0100007F:2384 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
"""
TABLE6 = """  sl  local_address                         remote_address                   st tx rx tr uid timeout inode
   0: 0000000000000000FFFF00000100007F:2384 0000000000000000FFFF00000100007F:A1B2 01 0:0 0:0 0 0 0 21 1 0 20 4 30
   1: 00000000000000000000000001000000:2384 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 22 1 0 20 4 30
   2: B80D0120000000000000000001000000:A1B2 B80D0120000000000000000002000000:01BB 01 0:0 0:0 0 0 0 23 1 0 20 4 30
"""


def test_the_tables_of_the_system_are_read() -> None:
    assert dict(sockets(TABLE, "tcp")) == {
        11: Endpoint("tcp", Address("127.0.0.1", 9092), None),
        12: Endpoint("tcp", Address("127.0.0.1", 41394), Address("127.0.0.1", 9092)),
        13: Endpoint("tcp", Address("10.0.0.2", 41395), Address("192.0.2.7", 443)),
    }
    assert dict(sockets(TABLE6, "udp")) == {
        21: Endpoint("udp", Address("127.0.0.1", 9092), Address("127.0.0.1", 41394)),
        22: Endpoint("udp", Address("::1", 9092), None),
        23: Endpoint("udp", Address("2001:db8::1", 41394), Address("2001:db8::2", 443)),
    }


@pytest.mark.parametrize(
    ("local", "remote", "within"),
    [
        (("127.0.0.1", 40000), ("127.0.0.1", 9092), True),
        (("127.0.0.1", 9092), ("127.0.0.1", 40000), True),
        (("::1", 9092), None, True),
        (("127.0.0.1", 40000), ("127.0.0.1", 443), False),
        (("127.0.0.1", 8080), None, False),
        (("0.0.0.0", 9092), None, False),
        (("10.0.0.2", 40000), ("192.0.2.7", 9092), False),
        (("10.0.0.2", 40000), ("2001:db8::2", 9092), False),
    ],
)
def test_a_socket_stays_on_loopback_and_on_ports_that_are_configured(
    local: tuple[str, int], remote: tuple[str, int] | None, within: bool
) -> None:
    assert Endpoint("tcp", Address(*local), remote and Address(*remote)).within({9092}) is within


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    (tmp_path / "home").mkdir()
    return Inside(tmp_path / "notes.jsonl", tmp_path / "home")


@pytest.fixture
def listening() -> Iterator[int]:
    """A port of loopback that nobody is configured with."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


def run(code: str, inside: Inside, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **inside.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def running(code: str) -> Iterator[int]:
    """A process that says when it is at rest, and then waits."""
    command = [sys.executable, "-c", f"{code}\nprint('rest', flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "rest\n"
            yield process.pid
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_socket_that_leads_elsewhere_is_seen_from_outside(listening: int) -> None:
    code = f"import socket; s = socket.create_connection(('{LOOPBACK}', {listening}))"
    with running(code) as pid:
        watch = Watch(lambda: {pid: "stray"}, lambda: {listening})
        watch.look()
        assert watch.strays() == []
        watch = Watch(lambda: {pid: "stray"}, lambda: {9092})
        with watch:
            wait_for(lambda: bool(watch.strays()))
        assert f"port={listening}" in watch.strays()[0]
        assert watch.strays()[0].startswith("stray: ")


def test_a_socket_that_listens_to_everyone_is_seen_from_outside() -> None:
    with running("import socket; s = socket.create_server(('', 0))") as pid:
        watch = Watch(lambda: {pid: "stray"}, lambda: range(1024, 65536))
        watch.look()
        assert len(watch.strays()) == 1


def test_a_file_held_open_in_the_home_folder_is_seen_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with running(f"f = open({str(tmp_path / 'usage.db')!r}, 'w'); g = open({__file__!r})") as pid:
        watch = Watch(lambda: {pid: "stray"}, lambda: ())
        watch.look()
        assert watch.strays() == [f"stray: {tmp_path / 'usage.db'}"]
        watch = Watch(lambda: {pid: "stray"}, lambda: (), allowed=[tmp_path])
        watch.look()
        assert watch.strays() == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "connect ['127.0.0.1', 9]"),
        (
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM)\n"
            "try: s.connect(('192.0.2.1', 9092))\nexcept OSError: pass",
            "connect ['192.0.2.1', 9092]",
        ),
        (
            "import socket\ntry: socket.getaddrinfo('telemetry.invalid', 443)\nexcept OSError: pass",
            "lookup telemetry.invalid",
        ),
        ("import pathlib; pathlib.Path.home().joinpath('.usage').write_text('x')", "/home/.usage"),
        ("import os; os.mkdir(os.path.expanduser('~/.cache'))", "/home/.cache"),
    ],
)
def test_what_a_python_process_does_elsewhere_is_noted(inside: Inside, code: str, what: str) -> None:
    done = run(code, inside)
    assert done.returncode == 0, done.stderr
    assert any(what in stray for stray in inside.strays({9092})), inside.strays({9092})


def test_what_a_python_process_may_do_is_no_stray(inside: Inside, listening: int) -> None:
    code = f"import socket; socket.create_connection(('localhost', {listening})); open('{inside.log}.txt', 'w')"
    done = run(code, inside)
    assert done.returncode == 0, done.stderr
    assert inside.notes()
    assert inside.strays({listening}) == []


def test_onnxruntime_cannot_be_imported_with_its_reporting_on(inside: Inside) -> None:
    done = run("import onnxruntime", inside)
    assert done.returncode == 1
    assert "ORT_DISABLE_TELEMETRY=1" in done.stderr
    assert any("reporting onnxruntime" in stray for stray in inside.strays(()))


def test_services_turn_the_reporting_off_themselves(inside: Inside) -> None:
    done = run("import penstock_inference.app, penstock_safety.app", inside)
    assert done.returncode == 0, done.stderr
    assert not any("reporting" in stray for stray in inside.strays(()))
