"""The inference service's engines, as the service runs them but for text and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.inference.serving import Desk, Run
from tests.benchmarks.inference.workload import Request

from penstock_inference.engine import Engine, Logits, Runner
from penstock_inference.genai.engine import GenaiEngine
from penstock_inference.genai.model import GenaiModel
from penstock_inference.layout import ModelLayout
from penstock_inference.prefixes import PrefixCache
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.scheduler import GRID, Generation

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
        limits = self._limits
        prefixes = PrefixCache(limits.prefix_mib << 20, self._runner.read(0, 0, GRID))
        return Engine(
            self._runner, likeliest, step_tokens=limits.step_tokens, stall_s=limits.stall_s, prefixes=prefixes
        )

    def serve(self, requests: Sequence[Request]) -> Run:
        """Answer all; the cache of prefixes is empty at first."""
        return _served(self.engine(), requests)


class OursInTurn:
    """The service's other engine: onnxruntime-genai, one sequence after another, a token each."""

    def __init__(self, folder: Path, rows: int, threads: int) -> None:
        self._limits = Limits(rows=rows, threads=threads, context=CONTEXT)
        self._model = GenaiModel(folder, self._limits)
        self.vocabulary = self._model.vocabulary_size

    def serve(self, requests: Sequence[Request]) -> Run:
        """Answer all."""
        limits = self._limits
        engine = GenaiEngine(self._model, likeliest, step_tokens=limits.step_tokens, stall_s=limits.stall_s)
        return _served(engine, requests)


def likeliest(_: Generation, logits: Logits) -> int:
    """The greedy choice."""
    return int(logits.argmax())


def _served(engine: Engine | GenaiEngine, requests: Sequence[Request]) -> Run:
    desk = Desk(requests)
    while True:
        for request in desk.due():
            engine.add(Generation(request.key, request.prompt, request.tokens))
        advanced = engine.step()
        if not advanced and not desk.wait():
            return desk.run()
        # a piece in the middle of a prompt gives no token
        desk.note({each.key: each.tokens[-1] for each in advanced if each.tokens})
