"""A service that passes events on: `python -m tests.faults.passing FIRST|SECOND|THIRD`, run by the real runtime.

Three of them make a chain from `llm.preprocessed` to `llm.results`; the first also counts in its state how
many requests each conversation has sent. For suites whose faults are the broker's, the network's or the
process's, so that nothing but the runtime takes time.

PASSING_PAUSE_MS makes each batch take that long. PASSING_JOURNAL names a file that gets a line `begin` and a
line `end` for each batch, so that a suite can tell whether a halted process stands within one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.contracts import topics
from penstock.contracts.base import Message
from penstock.contracts.events import RequestAnonymized, RequestPreprocessed, RequestScreened
from penstock.contracts.terminal import finish
from penstock.runtime.app import Resources, serve
from penstock.runtime.settings import ServiceSettings, load
from penstock.runtime.stage import Inbound, Outcome, State

if TYPE_CHECKING:
    from io import TextIOWrapper

READS = {"first": topics.PREPROCESSED, "second": topics.ANONYMIZED, "third": topics.SCREENED}
WRITES = {"first": topics.ANONYMIZED, "second": topics.SCREENED, "third": topics.RESULTS}


class Passing:
    """The stage: one event in, the next one out."""

    versions: Mapping[str, str] = {"passing": "1"}

    def __init__(self, name: str, state: State | None, pause_s: float, journal: TextIOWrapper | None) -> None:
        self.name = name
        self._step: Callable[[Inbound], Message] = {"first": self._first, "second": _second, "third": _third}[name]
        self._state = state
        self._pause_s = pause_s
        self._journal = journal

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        self._note("begin")
        time.sleep(self._pause_s)
        outcomes = [self._step(inbound) for inbound in batch]
        self._note("end")
        return outcomes

    def _note(self, text: str) -> None:
        if self._journal is not None:
            print(text, file=self._journal, flush=True)

    def _first(self, inbound: Inbound) -> RequestAnonymized:
        event = inbound.expect(RequestPreprocessed)
        if self._state is not None:
            key = event.context.conversation_id
            self._state.put(key, str(int(self._state.get(key) or 0) + 1))
        return RequestAnonymized(context=event.context, prompt=event.prompt, parameters=event.parameters)


def _second(inbound: Inbound) -> RequestScreened:
    event = inbound.expect(RequestAnonymized)
    return RequestScreened(context=event.context, prompt=event.prompt, parameters=event.parameters)


def _third(inbound: Inbound) -> Message:
    return finish(inbound.expect(RequestScreened), status="completed", now_ms=inbound.now_ms)


def main() -> int:
    """Serve one link of the chain until stopped; the exit status."""
    name = sys.argv[1]
    journal = os.environ.get("PASSING_JOURNAL")
    pause_s = int(os.environ.get("PASSING_PAUSE_MS", "0")) / 1000

    def build(resources: Resources) -> Passing:
        state = resources.state(topics.STATE_VAULTS) if name == "first" else None
        return Passing(name, state, pause_s, Path(journal).open("a", encoding="utf-8") if journal else None)

    return serve(load(ServiceSettings), name=name, consumes=(READS[name],), build=build)


if __name__ == "__main__":
    sys.exit(main())
