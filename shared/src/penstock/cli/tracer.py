"""Tracing of this command's own sending: the root span of each request, to the local stack's viewer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.cli.services import tracing_environment
from penstock.cli.state import StateFolder
from penstock.cli.target import Target
from penstock.runtime import telemetry


@contextmanager
def traced(target: Target) -> Iterator[None]:
    """Spans of this process are exported while the context lasts, and flushed at its end.

    To where OTEL_TRACES_EXPORTER and its companions say; else to the local stack's viewer, where `target` is
    the local stack; else nowhere: the requests still carry trace ids.
    """
    state = StateFolder.configured().load()
    viewer = state.viewer if state is not None and state.broker.address == target.bootstrap else None
    extra = tracing_environment(viewer, os.environ)
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        provider = telemetry.configure("cli", str(os.getpid()))
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    try:
        yield
    finally:
        provider.shutdown()
