"""Targets for tests: configurations, a pool without HTTP, and a backend that is stepped by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from tests.support.chat_server import ChatServer

from penstock.contracts.events import GenerationParameters, PromptPart
from penstock_inference.backend import Backend, GenerationRequest, Piece, RequestFault
from penstock_inference.targets.backend import TargetsBackend
from penstock_inference.targets.budgets import Book
from penstock_inference.targets.config import Config

PATIENCE_S = 60.0


def target(name: str, server: ChatServer | None = None, **more: Any) -> dict[str, Any]:
    """One target of a configuration; without a server it is never called."""
    url = "http://127.0.0.1:9/v1" if server is None else server.url
    return {"name": name, "base_url": url, "model": f"{name}-model", **more}


def config(*targets: dict[str, Any], **more: Any) -> Config:
    return Config.model_validate({"targets": targets, **more})


def request_of(
    key: int = 1, text: str = "one two three", *, request_id: str = "", tenant: str = "default", **given: Any
) -> GenerationRequest:
    prompt = (
        PromptPart(kind="template", text="<|user|>"),
        PromptPart(kind="text", text=text, role="user", message=0),
        PromptPart(kind="template", text="<|assistant|>"),
    )
    parameters = GenerationParameters(**{"model": "penstock-lm", "max_tokens": 64, **given})
    return GenerationRequest(key, prompt, parameters, 7, request_id or f"r-{key}", tenant, 10)


class MemoryBook:
    """Implements `targets.budgets.Book` as long as it lives."""

    def __init__(self) -> None:
        self.amounts: dict[str, float] = {}

    def own(self, key: str) -> float:
        return self.amounts.get(key, 0.0)

    def others(self, key: str) -> float:
        return 0.0

    def keep(self, key: str, amount: float) -> None:
        self.amounts[key] = amount

    def close(self) -> None:
        pass


class Bench:
    """A backend over real HTTP and what came of its requests."""

    def __init__(self, backend: TargetsBackend, registry: CollectorRegistry) -> None:
        self.backend = backend
        self._registry = registry
        self.pieces: dict[int, list[Piece]] = {}
        self.errors: dict[int, Exception] = {}

    def add(self, *requests: GenerationRequest) -> None:
        for request in requests:
            self.pieces[request.key] = []
            self.backend.add(request)

    def turn(self) -> None:
        """One step."""
        try:
            for piece in self.backend.step() or ():
                if piece.anew:
                    self.pieces[piece.key] = []
                self.pieces[piece.key].append(piece)
        except RequestFault as fault:
            self.errors[fault.key] = fault.cause
            self.backend.cancel(fault.key)

    def until(self, done: Any) -> None:
        """Step until a condition holds."""
        limit = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < limit, "it did not come about"
            self.turn()

    def run(self, *requests: GenerationRequest) -> None:
        """Add requests and step until all have ended."""
        self.add(*requests)
        self.until(lambda: all(self.ended(request.key) for request in requests))

    def ended(self, key: int) -> bool:
        pieces = self.pieces[key]
        return key in self.errors or bool(pieces and pieces[-1].finish_reason)

    def text(self, key: int = 1) -> str:
        return "".join(piece.text for piece in self.pieces[key])

    def last(self, key: int = 1) -> Piece:
        return self.pieces[key][-1]

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        return sum(
            sample.value
            for metric in self._registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextmanager
def bench(
    *targets: dict[str, Any],
    environment: dict[str, str] | None = None,
    book: Book | None = None,
    models: Mapping[str, Backend] | None = None,
    **more: Any,
) -> Iterator[Bench]:
    """A backend over these targets, closed at the end; `models` are those of the local ones, by target."""
    registry = CollectorRegistry()
    book = book or MemoryBook()
    local = models or {}
    backend = TargetsBackend(
        config(*targets, **more), environment or {}, lambda target: local[target.name], registry=registry, book=book
    )
    try:
        yield Bench(backend, registry)
    finally:
        backend.clear()
        backend.close()
