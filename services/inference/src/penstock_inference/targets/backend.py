"""Targets as a backend: an event loop in a thread of its own calls them, the stage's thread takes what came.

Nothing here waits for a server or a local model but that loop, and no model runs in it (`local`). `step` waits for
pieces, a moment at most, and returns at once where a request arrives or is given up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from penstock_inference.backend import Backend, GenerationRequest, Piece, RequestFault
from penstock_inference.targets.answers import Answers, input_tokens_of
from penstock_inference.targets.budgets import Book, Spending
from penstock_inference.targets.calls import Client
from penstock_inference.targets.client import ServerClient, messages_of
from penstock_inference.targets.config import Config, Target
from penstock_inference.targets.local import LocalClient
from penstock_inference.targets.meters import Meters
from penstock_inference.targets.pool import Pool
from penstock_inference.targets.routing import Routing

STEP_S = 0.1
"""How long a step waits at most: deadlines are looked at between steps."""
CLOSE_S = 10.0


class TargetsBackend:
    """Implements `backend.Backend`.

    `environment` holds the keys that the configuration names; `open_local` opens a local target's model.
    """

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        open_local: Callable[[Target], Backend],
        *,
        registry: CollectorRegistry,
        book: Book | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rows = sum(target.max_in_flight for target in config.of("primary"))
        self.versions: Mapping[str, str] = {"targets": config.digest}
        keys = {target.name: target.key(environment) for target in config.targets}
        models = {target.name: open_local(target) for target in config.targets if target.local is not None}
        self._book = book
        spending = Spending(config.budgets, book, clock)
        self._came: deque[tuple[int, Piece | Exception]] = deque()
        self._change = threading.Condition()
        self._woken = False
        self._running: dict[int, list[Future[None]]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="targets", daemon=True)
        self._thread.start()
        meters = Meters(registry)
        self._answers = self._in_loop(self._connect(config, keys, models, spending, meters)).result()

    def add(self, request: GenerationRequest) -> int:
        """Send a request; an estimate of its prompt's tokens, which the last piece corrects."""
        if request.key in self._running:
            raise ValueError(f"key {request.key} is running already")
        messages_of(request.prompt)
        self._running[request.key] = [
            self._in_loop(self._answer(request)),
            *(self._in_loop(self._answers.mirror(request, target)) for target in self._answers.shadows(request)),
        ]
        return input_tokens_of(request)

    def step(self) -> Sequence[Piece] | None:
        """The pieces that have come; None where none came for a moment. Raises RequestFault with a call's error."""
        with self._change:
            self._change.wait_for(lambda: self._came or self._woken, STEP_S)
            self._woken = False
            pieces: list[Piece] = []
            while self._came:
                key, came = self._came[0]
                if isinstance(came, Exception) and pieces and key in self._running:
                    break  # the next step's
                self._came.popleft()
                if key not in self._running:
                    continue
                if isinstance(came, Exception):
                    raise RequestFault(key, came)
                pieces.append(came)
                if came.finish_reason is not None:
                    del self._running[key]
        return pieces or None

    def cancel(self, key: int) -> None:
        """Give a request up: its HTTP stream is closed, its shadows' too."""
        for future in self._running.pop(key, ()):
            future.cancel()

    def clear(self) -> None:
        """Give all requests up."""
        for key in list(self._running):
            self.cancel(key)

    def wake(self) -> None:
        """Have a step that waits return; from any thread."""
        with self._change:
            self._woken = True
            self._change.notify()

    def close(self) -> None:
        """Close all connections and end the thread."""
        if self._loop.is_closed():
            return
        self._in_loop(self._end()).result(CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        self._loop.close()
        if self._book is not None:
            self._book.close()

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # --- in the loop

    async def _connect(
        self,
        config: Config,
        keys: Mapping[str, SecretStr],
        models: Mapping[str, Backend],
        spending: Spending,
        meters: Meters,
    ) -> Answers:
        self._clients: dict[str, Client] = {
            target.name: LocalClient(target, models[target.name])
            if target.name in models
            else ServerClient(target, keys[target.name])
            for target in config.targets
        }
        pool = Pool(config, meters, time.monotonic)
        routing = Routing(config, pool.in_flight)
        return Answers(self._clients, pool=pool, routing=routing, spending=spending, meters=meters, now=time.monotonic)

    async def _answer(self, request: GenerationRequest) -> None:
        try:
            await self._answers.answer(request, lambda piece: self._put(request.key, piece))
        except Exception as error:  # noqa: BLE001  # the step raises it in the stage's thread
            self._put(request.key, error)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    def _put(self, key: int, came: Piece | Exception) -> None:
        with self._change:
            self._came.append((key, came))
            self._change.notify()
