"""Bringing the local stack up and down: broker, viewer, topics, five services.

`up` is idempotent: it keeps what is alive and starts what is not. What a failed `up` has started, it ends
again. State is saved after each step, so that `down` finds whatever an interrupted `up` left. Progress goes to
a callback; showing it is left to the commands.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from penstock.cli import services
from penstock.cli.errors import StackError
from penstock.cli.probe import readiness
from penstock.cli.state import BackingState, ServiceState, StackState, StateFolder, ViewerState
from penstock.cli.target import Target, settings_for
from penstock.cli.vault_key import VARIABLE as VAULT_KEYS
from penstock.cli.vault_key import stored_vault_key
from penstock.local.docker import ComposeInfrastructure, docker_answers
from penstock.local.kafka import LocalKafka
from penstock.local.process import log_tail
from penstock.local.zipkin import LocalZipkin
from penstock.runtime import topics

READY_LIMIT_S = 120.0

Report = Callable[[str], None]
"""Called with what is being done, for a person to read."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` was asked for."""

    docker: bool = True
    viewer: bool = True
    bootstrap: str | None = None
    """A broker that is there already; None to bring one up."""
    prefix: str | None = None


@dataclass(slots=True)
class UpReport:
    """What `up` did."""

    state: StackState
    started: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    topic_changes: int = 0

    @property
    def was_up(self) -> bool:
        """Nothing had to be started."""
        return not self.started


class Stack:
    """The stack recorded in one state folder."""

    def __init__(self, folder: StateFolder, report: Report) -> None:
        self._folder = folder
        self._report = report

    def up(self, wanted: Wanted) -> UpReport:
        """Bring up what is not; raises StackError, LocalStackError or PenstockError, each with what to do."""
        services.check_installed()
        with self._folder.locked():
            return _Up(self._folder, self._report, wanted).run()

    def down(self, *, delete_data: bool = False) -> dict[str, str]:
        """End what `up` started, services first; name -> how it ended. Empty where nothing was up."""
        with self._folder.locked():
            ended: dict[str, str] = {}
            state = self._folder.load()
            if state is not None:
                self._report("ending the services")
                ended |= services.end(state.services.values())
                ended |= self._end_backing(state)
                self._folder.clear()
            if delete_data:
                containers = state.broker.kind == "container" and state.broker.ours if state else docker_answers()
                if containers and ComposeInfrastructure().delete_data():
                    ended["container data"] = "deleted"
                for path in (self._folder.broker_dir, self._folder.viewer_dir):
                    if path.exists():
                        shutil.rmtree(path)
                        ended[f"{path.name} data"] = "deleted"
            return ended

    def _end_backing(self, state: StackState) -> dict[str, str]:
        ended = {}
        if state.viewer is not None and state.viewer.kind == "process":
            self._report("ending the trace viewer")
            viewer = LocalZipkin.attach(self._folder.viewer_dir)
            ended["viewer"] = _stop(viewer)
        if state.broker.kind == "process":
            self._report("ending the broker")
            ended["broker"] = _stop(LocalKafka.attach(self._folder.broker_dir))
        elif state.broker.kind == "container" and state.broker.ours:
            self._report("removing the containers")
            ComposeInfrastructure().stop()
            ended["broker and viewer"] = "containers removed"
        else:
            ended["broker"] = f"left alone: `penstock up` did not start the one at {state.broker.address}"
        return ended


def alive(folder: StateFolder, state: StackState) -> dict[str, bool]:
    """Component -> whether its process or container runs; a broker that was only named is not looked at."""
    found = {name: service.identity.alive() for name, service in state.services.items()}
    if state.viewer is not None and state.viewer.kind == "process":
        found["viewer"] = LocalZipkin.attach(folder.viewer_dir) is not None
    if state.broker.kind == "process":
        found["broker"] = LocalKafka.attach(folder.broker_dir) is not None
    elif state.broker.kind == "container":
        found["broker"] = found["viewer"] = ComposeInfrastructure().running()
    return found


def _stop(server: LocalKafka | LocalZipkin | None) -> str:
    if server is None:
        return "had ended already"
    server.stop()
    return "ended"


class _Up:
    """One `up`: what it has started so far, so that it can be undone."""

    def __init__(self, folder: StateFolder, report: Report, wanted: Wanted) -> None:
        self._folder = folder
        self._report = report
        self._wanted = wanted
        self._before = folder.load()
        self._started: list[str] = []
        self._kept: list[str] = []
        self._undo: list[Callable[[], object]] = []

    def run(self) -> UpReport:
        try:
            return self._run()
        except BaseException:
            self._take_down()
            raise

    def _run(self) -> UpReport:
        self._check_same()
        state = self._backing()
        self._folder.save(state)
        self._report("applying topics")
        target = Target(settings_for(state.broker.address, state.prefix))
        target.reach()
        changes = topics.apply(target.bootstrap, target.prefix, options=target.admin_options)
        state = self._services(state)
        return UpReport(state, self._started, self._kept, len(changes))

    def _check_same(self) -> None:
        before, wanted = self._before, self._wanted
        if before is None:
            return
        if wanted.bootstrap is not None and wanted.bootstrap != before.broker.address:
            raise StackError(
                f"a stack is up on the broker at {before.broker.address}, not {wanted.bootstrap}; "
                "run `penstock down` first, or leave --bootstrap out"
            )
        if wanted.prefix is not None and wanted.prefix != before.prefix:
            raise StackError(
                f"a stack is up with the topic prefix {before.prefix!r}, not {wanted.prefix!r}; "
                "run `penstock down` first, or leave --prefix out"
            )

    def _backing(self) -> StackState:
        before, wanted = self._before, self._wanted
        prefix = wanted.prefix if wanted.prefix is not None else (before.prefix if before else "")
        address = wanted.bootstrap or (before.broker.address if before and before.broker.kind == "external" else None)
        recorded = before.services if before is not None else {}
        if address is not None:
            broker = BackingState(kind="external", address=address, ours=False)
            return StackState(prefix=prefix, broker=broker, viewer=self._local_viewer(), services=recorded)
        containers = before.broker.kind == "container" if before is not None else wanted.docker and docker_answers()
        if containers:
            return self._containers(prefix, recorded)
        broker = self._local_broker()
        # whoever interrupts what follows leaves a state from which `down` finds the broker
        self._folder.save(StackState(prefix=prefix, broker=broker, services=recorded))
        return StackState(prefix=prefix, broker=broker, viewer=self._local_viewer(), services=recorded)

    def _containers(self, prefix: str, recorded: dict[str, ServiceState]) -> StackState:
        infrastructure = ComposeInfrastructure()
        ran = infrastructure.running()
        ours = self._before.broker.ours if self._before is not None else not ran
        self._report("bringing up the containers of broker and trace viewer")
        if not ran:
            self._undo.append(infrastructure.stop)
        infrastructure.start()
        (self._kept if ran else self._started).extend(("broker", "viewer"))
        return StackState(
            prefix=prefix,
            broker=BackingState(kind="container", address=infrastructure.bootstrap_servers, ours=ours),
            viewer=ViewerState(
                kind="container",
                address=infrastructure.url,
                ours=ours,
                viewer="jaeger",
                spans=infrastructure.otlp_endpoint,
            ),
            services=recorded,
        )

    def _local_broker(self) -> BackingState:
        broker = LocalKafka.attach(self._folder.broker_dir)
        if broker is None:
            self._report("starting the Kafka broker (the first time, its jars are fetched)")
            port = _port_of(self._before.broker.address) if self._before is not None else 0
            broker = LocalKafka(self._folder.broker_dir, port, profile="full")
            broker.start()
            self._undo.append(broker.stop)
            self._started.append("broker")
        else:
            self._kept.append("broker")
        return BackingState(kind="process", address=broker.bootstrap_servers, ours=True)

    def _local_viewer(self) -> ViewerState | None:
        if not self._wanted.viewer:
            return self._before.viewer if self._before is not None else None
        viewer = LocalZipkin.attach(self._folder.viewer_dir)
        if viewer is None:
            self._report("starting the trace viewer (the first time, its jar is fetched)")
            known = self._before.viewer if self._before is not None else None
            viewer = LocalZipkin(self._folder.viewer_dir, _port_of(known.address) if known is not None else 0)
            viewer.start()
            self._undo.append(viewer.stop)
            self._started.append("viewer")
        else:
            self._kept.append("viewer")
        return ViewerState(kind="process", address=viewer.url, ours=True, viewer="zipkin", spans=viewer.endpoint)

    def _services(self, state: StackState) -> StackState:
        """All services ready: what ends meanwhile, as its broker comes back, is started again, each once."""
        state = self._start_missing(state)
        while not all(service.identity.alive() for service in state.services.values()):
            state = self._start_missing(state)
        self._kept += [name for name in services.SERVICES if name not in self._started]
        return state

    def _start_missing(self, state: StackState) -> StackState:
        running = {name: service for name, service in state.services.items() if service.identity.alive()}
        for name in self._started:
            if name in state.services and name not in running:
                raise _ended(state.services[name])
        wanted = [name for name in services.SERVICES if name not in running]
        state = state.model_copy(update={"services": running})
        if wanted:
            self._report(f"starting {', '.join(wanted)}")
        vault_key = os.environ.get(VAULT_KEYS) or stored_vault_key(self._folder.vault_key_file)
        chosen = services.ports(wanted, (service.port for service in running.values()))
        for name, port in chosen.items():
            environment = services.service_environment(
                name,
                os.environ,
                broker=state.broker,
                prefix=state.prefix,
                port=port,
                viewer=state.viewer,
                vault_key=vault_key,
            )
            service = services.start(name, self._folder, environment, port)
            self._undo.append(partial(services.end, [service]))
            self._started.append(name)
            state = state.model_copy(update={"services": {**state.services, name: service}})
            self._folder.save(state)
        self._wait_ready(state.services.values())
        return state

    def _wait_ready(self, all_services: Iterable[ServiceState]) -> None:
        waiting = {service.name: service for service in all_services}
        until = time.monotonic() + READY_LIMIT_S
        why: dict[str, str] = {}
        while waiting:
            for name, service in list(waiting.items()):
                if not service.identity.alive():
                    if name in self._started:
                        raise _ended(service)
                    del waiting[name]
                    continue
                answer = readiness(service.port)
                if answer.ready:
                    del waiting[name]
                why[name] = answer.why
            if not waiting:
                return
            self._report("waiting for " + ", ".join(waiting))
            if time.monotonic() > until:
                raise StackError(
                    "\n".join(
                        f"{name} is not ready after {READY_LIMIT_S:.0f} s ({why[name]}); the end of {service.log}:\n"
                        f"{log_tail(service.log)}"
                        for name, service in waiting.items()
                    )
                )
            time.sleep(0.2)

    def _take_down(self) -> None:
        if self._undo:
            self._report("taking down what was started")
        for undo in reversed(self._undo):
            undo()
        if self._before is None:
            self._folder.clear()
        else:
            self._folder.save(self._before)


def _ended(service: ServiceState) -> StackError:
    return StackError(f"{service.name} ended while starting; the end of {service.log}:\n{log_tail(service.log)}")


def _port_of(address: str) -> int:
    return int(address.rstrip("/").rpartition(":")[2])
