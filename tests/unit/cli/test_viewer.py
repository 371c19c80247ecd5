"""Traces from either viewer's API, and the tree that is drawn of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rich.console import Console

from penstock.cli.errors import CommandError, NotFound
from penstock.cli.tracing import tree
from penstock.cli.viewer import ViewedSpan, Viewer, parse_jaeger, parse_zipkin, recognize

ZIPKIN = [
    {
        "id": "b",
        "parentId": "a",
        "name": "process llm.requests",
        "timestamp": 1_500,
        "duration": 3_000,
        "localEndpoint": {"serviceName": "penstock-preprocess"},
        "tags": {"error": "invalid_field"},
    },
    {"id": "a", "name": "send llm.requests", "timestamp": 1_000, "duration": 900},
]
JAEGER = {
    "data": [
        {
            "processes": {"p1": {"serviceName": "penstock-cli"}, "p2": {"serviceName": "penstock-preprocess"}},
            "spans": [
                {
                    "spanID": "a",
                    "operationName": "send llm.requests",
                    "startTime": 1_000,
                    "duration": 900,
                    "processID": "p1",
                },
                {
                    "spanID": "b",
                    "operationName": "process llm.requests",
                    "startTime": 1_500,
                    "duration": 3_000,
                    "processID": "p2",
                    "references": [{"refType": "FOLLOWS_FROM", "spanID": "z"}, {"refType": "CHILD_OF", "spanID": "a"}],
                    "tags": [{"key": "error", "value": True}, {"key": "error.type", "value": "invalid_field"}],
                },
            ],
        }
    ]
}


@contextmanager
def serving(pages: dict[str, Any]) -> Iterator[str]:
    """An HTTP server on loopback with these JSON pages; 404 for all others."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_both_viewers_tell_the_same_tree() -> None:
    zipkin = sorted(parse_zipkin(ZIPKIN), key=lambda span: span.span_id)
    jaeger = parse_jaeger(JAEGER)
    for ours, theirs in zip(zipkin, jaeger, strict=True):
        assert (ours.span_id, ours.parent_id, ours.name) == (theirs.span_id, theirs.parent_id, theirs.name)
        assert (ours.start_us, ours.duration_us, ours.error) == (theirs.start_us, theirs.duration_us, theirs.error)
    assert jaeger[1].service == zipkin[1].service == "penstock-preprocess"


def test_a_trace_is_fetched_and_linked_by_kind() -> None:
    with serving({"/api/v2/trace/t1": ZIPKIN, "/api/v2/services": []}) as url:
        viewer = recognize(url + "/")
        assert viewer == Viewer(url, "zipkin")
        assert len(viewer.fetch("t1")) == 2
        assert viewer.link("t1") == f"{url}/zipkin/traces/t1"
        with pytest.raises(NotFound, match="no trace t2"):
            viewer.fetch("t2")
    with serving({"/api/traces/t1": JAEGER, "/api/services": {}}) as url:
        viewer = recognize(url)
        assert (viewer.kind, len(viewer.fetch("t1")), viewer.link("t1")) == ("jaeger", 2, f"{url}/trace/t1")


def test_what_is_no_viewer_is_said() -> None:
    with serving({}) as url, pytest.raises(CommandError, match="neither Zipkin nor Jaeger"):
        recognize(url)
    with pytest.raises(CommandError, match="nobody answers"):
        recognize(url)


def draw(spans: list[ViewedSpan]) -> list[str]:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(tree(spans, "trace t1"))
    return capture.get().splitlines()


def test_the_tree_shows_parent_duration_start_and_error() -> None:
    lines = draw(parse_zipkin(ZIPKIN))
    assert lines[0] == "trace t1"
    assert lines[1].startswith("└── send llm.requests  0.9 ms  +0.0 ms")
    assert lines[2].startswith("    └── process llm.requests  3.0 ms  +0.5 ms  penstock-preprocess  invalid_field")


def test_a_span_without_its_parent_is_still_shown() -> None:
    lines = draw([ViewedSpan("b", "gone", "process llm.requests", "s", 5, 5)])
    assert lines[1].startswith("└── process llm.requests")


def test_a_ring_of_parents_ends() -> None:
    spans = [ViewedSpan("r", None, "root", "s", 0, 9), ViewedSpan("r", "r", "itself", "s", 1, 1)]
    assert len(draw(spans)) == 2
