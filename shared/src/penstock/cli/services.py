"""The five services as processes: their environment, starting them, ending them.

Which are to be started, and what else there is to the stack, `stack` knows.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.cli.errors import StackError
from penstock.cli.models_registry import MODELS_DIR_VARIABLE as MODELS_DIR
from penstock.cli.models_registry import configured_models_dir
from penstock.cli.state import BackingState, ServiceState, StateFolder, ViewerState
from penstock.cli.vault_key import VARIABLE as VAULT_KEYS
from penstock.local.errors import ProjectRootError
from penstock.local.ports import LOOPBACK, free_port
from penstock.local.process import kill, send, start_detached
from penstock.local.root import project_root

SERVICES = ("preprocess", "anonymize", "safety", "inference", "postprocess")
WITH_VAULT = frozenset({"anonymize", "postprocess"})
"""The only services that are given the vault's key."""
GRACE_S = 10.0


def check_installed() -> None:
    """Raises StackError naming the services whose package is not installed beside this command."""
    missing = [name for name in SERVICES if importlib.util.find_spec(f"penstock_{name}") is None]
    if missing:
        raise StackError(
            f"not installed in {sys.prefix}: {', '.join(f'penstock-{name}' for name in missing)}; run `make setup`, "
            "or `uv sync` at the top of a checkout"
        )


def tracing_environment(viewer: ViewerState | None, base: Mapping[str, str]) -> dict[str, str]:
    """Where spans go: to the stack's viewer, unless the environment names an exporter itself."""
    if viewer is None or base.get("OTEL_TRACES_EXPORTER"):
        return {}
    if viewer.viewer == "zipkin":
        return {"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_ZIPKIN_ENDPOINT": viewer.spans}
    return {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.spans}


def service_environment(
    name: str,
    base: Mapping[str, str],
    *,
    broker: BackingState,
    prefix: str,
    port: int,
    viewer: ViewerState | None,
    vault_key: str,
) -> dict[str, str]:
    """One service's environment: the caller's, with the stack's addresses; the vault's key only where it belongs."""
    environment = {key: value for key, value in base.items() if key != VAULT_KEYS}
    environment |= tracing_environment(viewer, base)
    environment |= {
        "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": broker.address,
        "PENSTOCK_TOPIC_PREFIX": prefix,
        MODELS_DIR: configured_models_dir(),
        "PENSTOCK_HTTP_HOST": LOOPBACK,
        "PENSTOCK_HTTP_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    if name in WITH_VAULT:
        environment[VAULT_KEYS] = vault_key
    return environment


def start(name: str, folder: StateFolder, environment: Mapping[str, str], port: int) -> ServiceState:
    """Start one service in a session of its own, its output appended to its log."""
    log = folder.log_file(name)
    command = [sys.executable, "-m", f"penstock_{name}"]
    identity = start_detached(command, log_file=log, cwd=_working_folder(), env=environment)
    return ServiceState(name=name, pid=identity.pid, started=identity.started, port=port, log=log)


def ports(names: Iterable[str], taken: Iterable[int]) -> dict[str, int]:
    """A free loopback port for each name."""
    chosen: dict[str, int] = {}
    for name in names:
        chosen[name] = free_port(excluding=frozenset({*taken, *chosen.values()}))
    return chosen


def end(services: Iterable[ServiceState], grace_s: float = GRACE_S) -> dict[str, str]:
    """SIGTERM to all at once, SIGKILL to those still there after `grace_s`; name -> how it ended.

    A process that has ended already is not signalled, whoever has its id now.
    """
    waiting = list(services)
    ended = {
        service.name: "ended" if send(service.identity, signal.SIGTERM) else "had ended already" for service in waiting
    }
    until = time.monotonic() + grace_s
    while time.monotonic() < until and any(service.identity.alive() for service in waiting):
        time.sleep(0.02)
    for service in waiting:
        if service.identity.alive():
            kill(service.identity)
            ended[service.name] = f"killed, still there {grace_s:.0f} s after SIGTERM"
    return ended


def _working_folder() -> Path:
    try:
        return project_root()  # relative paths in the settings are from the top of the checkout
    except ProjectRootError:
        return Path.cwd()
