"""Fetching one trace from the viewer, Zipkin's or Jaeger's HTTP API, as plain spans.

Links for people are made here too; drawing is left to `tracing`.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from penstock.cli.errors import CommandError, NotFound
from penstock.cli.state import ViewerKind

_LIMIT_S = 5.0
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ViewedSpan:
    """One span as a viewer knows it; times in microseconds."""

    span_id: str
    parent_id: str | None
    name: str
    service: str
    start_us: int
    duration_us: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Viewer:
    """A trace viewer's address and kind."""

    url: str
    kind: ViewerKind

    def link(self, trace_id: str) -> str:
        """The page of one trace."""
        page = "zipkin/traces" if self.kind == "zipkin" else "trace"
        return f"{self.url}/{page}/{trace_id}"

    def fetch(self, trace_id: str) -> list[ViewedSpan]:
        """The spans of a trace; raises NotFound where the viewer has none of it, CommandError where none answers."""
        path = "api/v2/trace" if self.kind == "zipkin" else "api/traces"
        status, body = get(f"{self.url}/{path}/{trace_id}")
        spans = _PARSERS[self.kind](json.loads(body)) if status == http.HTTPStatus.OK else []
        if not spans:
            raise NotFound(
                f"the viewer at {self.url} has no trace {trace_id}: it may be younger than a second, older than what "
                "the viewer keeps, or not sampled"
            )
        return spans


def recognize(url: str) -> Viewer:
    """The viewer at this address, its kind found by asking; raises CommandError."""
    base = url.rstrip("/")
    if get(f"{base}/api/v2/services")[0] == http.HTTPStatus.OK:
        return Viewer(base, "zipkin")
    if get(f"{base}/api/services")[0] == http.HTTPStatus.OK:
        return Viewer(base, "jaeger")
    raise CommandError(f"what answers at {base} is neither Zipkin nor Jaeger; give the viewer's address with --viewer")


def get(url: str, timeout_s: float = _LIMIT_S) -> tuple[int, bytes]:
    """Status and body of a page, past any proxy; raises CommandError where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return answer.status, answer.read(_MAX_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise CommandError(f"nobody answers at {url} ({reason}); look at `penstock status`") from None


def parse_zipkin(body: Any) -> list[ViewedSpan]:
    """Spans of Zipkin's v2 JSON."""
    return [
        ViewedSpan(
            span_id=span["id"],
            parent_id=span.get("parentId"),
            # Zipkin keeps names in lower case
            name=span.get("name", ""),
            service=span.get("localEndpoint", {}).get("serviceName", ""),
            start_us=span.get("timestamp", 0),
            duration_us=span.get("duration", 0),
            error=span.get("tags", {}).get("error"),
        )
        for span in body
    ]


def parse_jaeger(body: Any) -> list[ViewedSpan]:
    """Spans of Jaeger's query JSON."""
    spans = []
    for trace in body.get("data") or ():
        services = {key: process.get("serviceName", "") for key, process in trace.get("processes", {}).items()}
        for span in trace.get("spans", ()):
            tags = {tag["key"]: tag.get("value") for tag in span.get("tags", ())}
            parents = [ref["spanID"] for ref in span.get("references", ()) if ref.get("refType") == "CHILD_OF"]
            failed = tags.get("error") in (True, "true")
            spans.append(
                ViewedSpan(
                    span_id=span["spanID"],
                    parent_id=parents[0] if parents else None,
                    name=span.get("operationName", ""),
                    service=services.get(span.get("processID", ""), ""),
                    start_us=span.get("startTime", 0),
                    duration_us=span.get("duration", 0),
                    error=str(tags.get("error.type") or "error") if failed else None,
                )
            )
    return spans


_PARSERS: Final[dict[ViewerKind, Callable[[Any], list[ViewedSpan]]]] = {
    "zipkin": parse_zipkin,
    "jaeger": parse_jaeger,
}
