"""The inference service's engine, as the service runs it but for text and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.inference.serving import Desk, Run
from tests.benchmarks.inference.workload import Request

from penstock_inference.engine import Engine, Runner
from penstock_inference.layout import ModelLayout
from penstock_inference.prefixes import PrefixCache
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.scheduler import Generation

CONTEXT = 1024


class Ours:
    """Continuous batching with the service's defaults, except for rows, threads and the context."""

    def __init__(self, folder: Path, rows: int, threads: int) -> None:
        self._limits = Limits(rows=rows, threads=threads, context=CONTEXT)
        self._runner = self.runner(folder, self._limits)
        self.vocabulary = self._runner.vocabulary_size

    def runner(self, folder: Path, limits: Limits) -> Runner:
        """What passes run on."""
        return OnnxRunner(ModelLayout.read(folder), limits)

    def engine(self) -> Engine:
        """A new one on that."""
        return Engine(
            self._runner,
            lambda _, logits: int(logits.argmax()),
            step_tokens=self._limits.step_tokens,
            stall_s=self._limits.stall_s,
            prefixes=PrefixCache(self._limits.prefix_mib << 20),
        )

    def serve(self, requests: Sequence[Request]) -> Run:
        """Answer all; the cache of prefixes is empty at first."""
        engine = self.engine()
        desk = Desk(requests)
        while True:
            for request in desk.due():
                engine.add(Generation(request.key, request.prompt, request.tokens))
            advanced = engine.step()
            if not advanced and not desk.wait():
                return desk.run()
            # a piece in the middle of a prompt gives no token
            desk.note({each.key: each.tokens[-1] for each in advanced if each.tokens})
