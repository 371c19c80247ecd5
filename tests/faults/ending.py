"""A hop of a chain in latency mode: `python -m tests.faults.ending NAME`, run by the real runtime.

`first`, `second` and `third` pass events on from `llm.preprocessed` to `llm.screened-completions` and end one
request in ten by themselves, drawn anew each time, so that a repeat may end otherwise than what it repeats.
`last` writes the results. `careless` reads what `last` reads and drops no repeats; what it would have written to
`llm.results` stands on `llm.tokens`.

ENDING_KILL names a file: where it is there, the process takes it away and ends itself with SIGKILL, with outputs
written and the offsets of their inputs not committed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.contracts import topics
from penstock.contracts.base import Message
from penstock.contracts.errors import InvalidRequest
from penstock.contracts.events import (
    Completion,
    CompletionScreened,
    RequestAnonymized,
    RequestPreprocessed,
    RequestScreened,
    Usage,
)
from penstock.contracts.terminal import finish
from penstock.runtime.app import serve
from penstock.runtime.ends import End
from penstock.runtime.outcomes import Settled
from penstock.runtime.publisher import Publisher
from penstock.runtime.settings import ServiceSettings, load
from penstock.runtime.stage import Inbound, Outcome

READS = {
    "first": topics.PREPROCESSED,
    "second": topics.ANONYMIZED,
    "third": topics.SCREENED,
    "last": topics.SCREENED_COMPLETIONS,
    "careless": topics.SCREENED_COMPLETIONS,
}
CONTROL = topics.TOKENS
ENDED = 0.1
"""Share of the requests that each of the first three ends."""


class Ending:
    """The stage: one event in, the next one or an end out."""

    versions: Mapping[str, str] = {"ending": "1"}

    def __init__(self, name: str) -> None:
        self.name = name
        self._step: Callable[[Inbound], Message] = {"first": _first, "second": _second, "third": _third}.get(
            name, _last
        )
        self._ends = name in ("first", "second", "third")
        self._chosen = random.Random()

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        return [
            InvalidRequest("drawn by lot") if self._ends and self._chosen.random() < ENDED else self._step(inbound)
            for inbound in batch
        ]


def _first(inbound: Inbound) -> Message:
    event = inbound.expect(RequestPreprocessed)
    return RequestAnonymized(context=event.context, prompt=event.prompt, parameters=event.parameters)


def _second(inbound: Inbound) -> Message:
    event = inbound.expect(RequestAnonymized)
    return RequestScreened(context=event.context, prompt=event.prompt, parameters=event.parameters)


def _third(inbound: Inbound) -> Message:
    event = inbound.expect(RequestScreened)
    usage = Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
    completion = Completion(text="done", finish_reason="stop", usage=usage)
    return CompletionScreened(context=event.context, completion=completion, parameters=event.parameters)


def _last(inbound: Inbound) -> Message:
    return finish(inbound.expect(CompletionScreened), status="completed", now_ms=inbound.now_ms)


def _kept(_: End, settled: Settled) -> Settled:
    """In place of what drops repeats."""
    outputs = [replace(one, topic=CONTROL) if one.topic == topics.RESULTS else one for one in settled.outputs]
    return replace(settled, outputs=outputs)


def _ending_itself(commit: Callable[..., None], flag: Path) -> Callable[..., None]:
    def commit_or_die(self: Publisher, positions: Any) -> None:
        if flag.exists():
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        commit(self, positions)

    return commit_or_die


def main() -> int:
    """Serve one hop until stopped; the exit status."""
    name = sys.argv[1]
    if name == "careless":
        End._once = _kept  # type: ignore[method-assign]  # the control
    Publisher._commit_offsets = _ending_itself(Publisher._commit_offsets, Path(os.environ["ENDING_KILL"]))  # type: ignore[method-assign]  # the fault
    finished = topics.STATE_FINISHED if name in ("last", "careless") else None
    return serve(
        load(ServiceSettings), name=name, consumes=(READS[name],), build=lambda _: Ending(name), finished=finished
    )


if __name__ == "__main__":
    sys.exit(main())
