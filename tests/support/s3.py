"""An S3-compatible server of the tests' own: moto's, as a process on loopback."""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from penstock.local.ports import LOOPBACK, free_port
from penstock.local.process import log_tail, start_detached, stop

START_LIMIT_S = 60.0


class S3Server:
    """Keeps buckets in memory while the context lasts. `environment` leads a client to it."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "s3.log"
        self._port = free_port()
        self.url = f"http://{LOOPBACK}:{self._port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def __enter__(self) -> S3Server:
        command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(self._port)]
        self._identity = start_detached(command, log_file=self._log, cwd=Path.cwd(), env=dict(os.environ))
        until = time.monotonic() + START_LIMIT_S
        while True:
            try:
                self._request("GET", "/moto-api/data.json")
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > until or not self._identity.alive():
                    self.stop()
                    raise AssertionError(f"the S3 server did not start; its log:\n{log_tail(self._log)}") from None
                time.sleep(0.1)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; nothing happens where it has ended."""
        stop(self._identity, grace_s=5)

    def make_bucket(self, name: str) -> None:
        """Create an empty bucket."""
        self._request("PUT", f"/{name}")

    def _request(self, method: str, path: str) -> None:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", method=method), timeout=10) as answer:
            answer.read()
