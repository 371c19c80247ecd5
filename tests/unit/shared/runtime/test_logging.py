"""`penstock.runtime.logging`: one JSON object a line on stderr, with trace ids, without what was processed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from penstock.runtime.logging import frames

SECRET = "erika@example.org"

PROGRAM = """
import threading
import structlog
from opentelemetry.sdk.trace import TracerProvider
from penstock.runtime import logging
log = structlog.get_logger()
logging.configure("safety", "{level}", "{style}")
log.debug("safety.request.seen")
with TracerProvider().get_tracer("t").start_as_current_span("x"):
    log.info("safety.request.blocked", label="secret", score=0.9)
thread = threading.Thread(target=lambda: log.warning("safety.model.slow"))
thread.start()
thread.join()
"""


def lines(level: str = "info", style: str = "json") -> list[str]:
    program = PROGRAM.format(level=level, style=style)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_line_is_a_json_object_with_event_service_level_and_time() -> None:
    blocked, slow = (json.loads(line) for line in lines())
    assert blocked["event"] == "safety.request.blocked"
    assert (blocked["service"], blocked["level"], blocked["label"]) == ("safety", "info", "secret")
    assert blocked["timestamp"].endswith("Z")
    assert len(blocked["trace_id"]) == 32
    assert len(blocked["span_id"]) == 16
    # the stage's thread is named too, and has no span here
    assert slow["service"] == "safety"
    assert "trace_id" not in slow


def test_the_level_is_a_threshold() -> None:
    assert [json.loads(line)["event"] for line in lines("warning")] == ["safety.model.slow"]
    assert len(lines("debug")) == 3


def test_console_style_is_for_people() -> None:
    assert not any(line.startswith("{") for line in lines(style="console"))


def inner() -> Any:
    raise ValueError(f"cannot parse {SECRET}")


def test_frames_say_where_and_never_what() -> None:
    try:
        inner()
    except ValueError as error:
        found = frames(error)
    assert [frame.split()[-1] for frame in found] == ["test_frames_say_where_and_never_what", "inner"]
    assert found[-1].startswith("test_logging.py:")
    assert SECRET not in "".join(found)


def test_frames_are_bounded_to_the_innermost() -> None:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            inner()

    try:
        dive(50)
    except ValueError as error:
        found = frames(error)
    assert len(found) == 12
    assert found[-1].endswith(" inner")
