"""What `up` starts, with processes that do nothing in place of services."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.cli import services, stack
from penstock.cli.errors import StackError
from penstock.cli.probe import Readiness
from penstock.cli.state import ServiceState, StateFolder
from penstock.local.process import kill, start_detached

WANTED = stack.Wanted(viewer=False, bootstrap="127.0.0.1:1")


class Started:
    """Every process that was started; `meanwhile` happens as one of them is."""

    def __init__(self) -> None:
        self.all: list[ServiceState] = []
        self.meanwhile: Callable[[ServiceState], None] = lambda service: None

    def __call__(self, name: str, folder: StateFolder, environment: Mapping[str, str], port: int) -> ServiceState:
        log = folder.log_file(name)
        identity = start_detached(["sleep", "300"], log_file=log, cwd=folder.path, env=dict(environment))
        service = ServiceState(name=name, pid=identity.pid, started=identity.started, port=port, log=log)
        self.all.append(service)
        self.meanwhile(service)
        return service


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    made = Started()

    def nothing(*_: object, **__: object) -> list[Any]:
        return []

    monkeypatch.setattr(services, "start", made)
    monkeypatch.setattr(stack, "readiness", lambda port: Readiness(True))
    monkeypatch.setattr(stack.Target, "reach", nothing)
    monkeypatch.setattr(stack.topics, "apply", nothing)
    yield made
    services.end(made.all)


def _up(folder: Path) -> stack.UpReport:
    return stack.Stack(StateFolder(folder), lambda line: None).up(WANTED)


def test_what_ends_while_another_is_started_is_started_again(started: Started, tmp_path: Path) -> None:
    first = _up(tmp_path)
    assert (first.started, first.kept) == (list(services.SERVICES), [])
    kill(first.state.services["safety"].identity)
    started.meanwhile = lambda service: kill(first.state.services["inference"].identity)
    second = _up(tmp_path)
    assert second.started == ["safety", "inference"]
    assert second.kept == ["preprocess", "anonymize", "postprocess"]
    assert all(service.identity.alive() for service in second.state.services.values())


def test_what_was_started_and_ended_is_not_started_a_second_time(started: Started, tmp_path: Path) -> None:
    first = _up(tmp_path)
    kill(first.state.services["safety"].identity)
    started.meanwhile = lambda service: kill(service.identity)
    with pytest.raises(StackError, match="safety ended while starting"):
        _up(tmp_path)
