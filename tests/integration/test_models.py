"""Another model while requests are under way, on the whole stack: no restart, no request lost or answered twice."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kafka import Publishing, Slot, place_of
from tests.support.models import SHIPPED
from tests.support.stack import SERVICES, Stack

from penstock.models.entries import Entry
from penstock.models.manifest import Source
from penstock.models.registry import Registry

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

BODY = json.dumps({"messages": [{"role": "user", "content": "What is a river?"}], "max_tokens": 24}).encode()


@pytest.fixture
def registry(stack: Stack) -> Iterator[Registry]:
    """The stack's, which has its embedded model back in the end."""
    registry = Registry(stack.models_dir, SHIPPED)
    yield registry
    while not registry.find("champion").builtin:
        registry.rollback()
    answered_by(stack, registry.find("builtin"))


@pytest.fixture
def twin(registry: Registry, tmp_path: Path) -> Entry:
    """The embedded model in files of another digest: other suites on this stack must not notice."""
    folder = shutil.copytree(SHIPPED, tmp_path / "penstock-lm")
    config = folder / "genai_config.json"
    config.write_text(config.read_text() + "\n")
    return registry.add(folder, source=Source(kind="folder", location="test")).entry


def answered_by(stack: Stack, entry: Entry, seconds: float = 120) -> list[Slot]:
    """Send requests until all of a few are answered by a model; where all of them stood."""
    places: list[Slot] = []
    until = time.monotonic() + seconds
    while True:
        few = stack.send([Publishing(BODY)] * 4)
        places += few
        found = stack.wait_results(few)
        digests = {result.versions["model"] for result in found.values()}
        if digests == {entry.manifest.answers}:
            return places
        assert time.monotonic() < until, f"answered by {digests}, not {entry.reference}\n{stack.tails()}"


def starts(stack: Stack) -> list[int]:
    """How often each service was started."""
    return [log.count("runtime.process.started") for log in stack.logs().values()]


def test_a_promotion_and_a_rollback_under_load(stack: Stack, registry: Registry, twin: Entry) -> None:
    embedded = registry.find("builtin")
    assert embedded.manifest.answers != twin.manifest.answers
    started = starts(stack)
    places = answered_by(stack, embedded)
    places += stack.send([Publishing(BODY)] * 16)
    registry.promote(twin.reference)
    places += answered_by(stack, twin)
    places += stack.send([Publishing(BODY)] * 16)
    registry.rollback()
    places += answered_by(stack, embedded)

    found = stack.wait_results(places)
    assert Counter(result.status for result in found.values()) == {"completed": len(places)}
    assert {result.versions["model"] for result in found.values()} == {embedded.manifest.answers, twin.manifest.answers}
    mine = set(places)
    times = Counter(place for place in map(place_of, stack.results()) if place in mine)
    assert set(times.values()) == {1}
    for service in ("preprocess", "inference"):
        loads = f'penstock_model_loads_total{{outcome="loaded",stage="{service}"}}'
        assert loads in stack.metrics(service)
    assert all(stack.alive(service) for service in SERVICES)
    assert starts(stack) == started
