"""The Zipkin server from its executable jar: a trace viewer on loopback, without a container engine.

Spans are kept in memory and are gone when it stops. Leaves exporting to the OpenTelemetry SDK.
"""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Self

from penstock.local.jars import find_java, resolve_jars
from penstock.local.ports import LOOPBACK, free_port
from penstock.local.process import start_detached
from penstock.local.root import project_root
from penstock.local.server import LocalServer, wait_ready

_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")


class LocalZipkin(LocalServer):
    """One Zipkin server; its folder holds its log. `max_spans` bounds what it keeps in memory."""

    what = "trace viewer"
    stem = "zipkin"

    def __init__(
        self,
        state_dir: Path | None = None,
        port: int = 0,
        *,
        max_spans: int = 200_000,
        start_limit_s: float = 90.0,
        root: Path | None = None,
    ) -> None:
        super().__init__(state_dir, port, start_limit_s=start_limit_s, root=root)
        self._max_spans = max_spans

    @classmethod
    def _at(cls, folder: Path, port: int) -> Self:
        return cls(folder, port)

    @property
    def url(self) -> str:
        """The address of the user interface."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_ZIPKIN_ENDPOINT` takes."""
        return f"{self.url}/api/v2/spans"

    def trace_url(self, trace_id: str) -> str:
        """The page of one trace; `trace_id` in hexadecimal."""
        return f"{self.url}/zipkin/traces/{trace_id}"

    def _launch(self) -> None:
        java = find_java()
        pom = (self._root or project_root()) / "deploy" / "zipkin" / "pom.xml"
        jar = next(resolve_jars(pom, name="zipkin", version_property="zipkin.version").glob("*.jar"))
        self._port = self._wanted_port or free_port()
        command = [
            java.program, *_JVM,
            # its own resolver would hold a socket of every interface
            "-Dcom.linecorp.armeria.useJdkDnsResolver=true", "-jar", str(jar),
            # its own default is every interface of the machine
            f"--armeria.ports[0].ip={LOOPBACK}", f"--armeria.ports[0].port={self._port}",
            "--armeria.ports[0].protocols[0]=http", f"--zipkin.storage.mem.max-spans={self._max_spans}",
            "--zipkin.self-tracing.enabled=false",
            # nothing is written at the end, so there is nothing to wait for
            "--armeria.graceful-shutdown-quiet-period-millis=0", "--armeria.graceful-shutdown-timeout-millis=500",
        ]  # fmt: skip
        identity = start_detached(command, log_file=self.log_file, cwd=self.folder)
        self._started(identity)
        self._note_port()
        wait_ready(self.what, identity, lambda: _healthy(self.port), self.log_file, self._start_limit_s)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
