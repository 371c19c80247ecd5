"""One local model as a target: a backend in a thread of its own, so that no step of it holds the event loop up.

A step that fails because of one request fails that one. Any other failure fails all that the model has, as a server
that breaks off does: they go on to the next target, or wait for the runtime's next attempt.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import structlog

from penstock.contracts.errors import BackendUnavailable, PenstockError, StageError
from penstock.runtime.logging import frames
from penstock_inference.backend import Backend, GenerationRequest, Piece, RequestFault
from penstock_inference.targets.calls import Chunk
from penstock_inference.targets.config import Target

_log = structlog.get_logger()

CLOSE_S = 5.0

_Tell = Callable[[Chunk | PenstockError], None]
"""Tells a call, from the model's thread, what came of it."""


class LocalClient:
    """Implements `calls.Client`."""

    def __init__(self, target: Target, backend: Backend) -> None:
        """`backend` is used by the new thread alone from here on, and closed by it."""
        self._target = target
        self._backend = backend
        self._keys = itertools.count(1)
        self._change = threading.Condition()
        self._todo: deque[Callable[[], None]] = deque()
        self._closing = False
        self._calls: dict[int, _Tell] = {}
        """By the backend's keys; the thread's."""
        self._thread = threading.Thread(target=self._run, name=f"model {target.name}", daemon=True)
        self._thread.start()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk]:
        """The chunks of one answer; raises PenstockError or TimeoutError. Closing it gives the request up."""
        if not self._thread.is_alive():
            raise BackendUnavailable(f"the thread of target {self._target.name} has ended; the log has the place")
        times = self._target.timeouts
        key = next(self._keys)
        came: asyncio.Queue[Chunk | PenstockError] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(chunk: Chunk | PenstockError) -> None:
            loop.call_soon_threadsafe(came.put_nowait, chunk)

        self._do(lambda: self._begin(replace(request, key=key), tell))
        limit = loop.time() + times.first_token_s
        try:
            async with asyncio.timeout(times.total_s):
                while True:
                    async with asyncio.timeout_at(limit):
                        chunk = await came.get()
                    if isinstance(chunk, PenstockError):
                        raise chunk
                    yield chunk
                    if chunk.finish_reason is not None:
                        return
                    if chunk.output_tokens:
                        limit = loop.time() + times.idle_s
        finally:
            self._do(lambda: self._give_up(key))

    async def close(self) -> None:
        """End the thread after the step that runs."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._backend.wake()
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    def _do(self, work: Callable[[], None]) -> None:
        """Have the thread do something between two steps."""
        with self._change:
            self._todo.append(work)
            self._change.notify()
        self._backend.wake()

    # --- in the thread

    def _run(self) -> None:
        try:
            while self._goes_on():
                pass
            self._backend.clear()
            self._backend.close()
        except Exception as error:  # noqa: BLE001  # without its message, which may quote a prompt; `stream` tells who calls
            _log.critical("inference.thread.failed", error_type=type(error).__name__, frames=frames(error))

    def _goes_on(self) -> bool:
        try:
            return self._turn()
        except Exception as error:  # noqa: BLE001  # whatever it is, the calls that wait are told
            if not self._closing:
                self._fail(error)
            return not self._closing

    def _turn(self) -> bool:
        """What has come to be done, and a step; False where it is time to end."""
        while (work := self._next()) is not None:
            work()
        if self._calls and not self._closing:
            self._step()
        return not self._closing

    def _next(self) -> Callable[[], None] | None:
        with self._change:
            while not (self._todo or self._calls or self._closing):
                self._change.wait()
            return self._todo.popleft() if self._todo else None

    def _begin(self, request: GenerationRequest, tell: _Tell) -> None:
        try:
            self._backend.add(request)
        except Exception as error:  # noqa: BLE001  # whatever it is, the call that waits is told
            tell(_error_of(error))
        else:
            self._calls[request.key] = tell

    def _give_up(self, key: int) -> None:
        if self._calls.pop(key, None) is not None:
            self._backend.cancel(key)

    def _step(self) -> None:
        try:
            pieces = self._backend.step()
        except RequestFault as fault:
            tell = self._calls[fault.key]
            self._give_up(fault.key)
            tell(_error_of(fault.cause))
            return
        if pieces is not None and not pieces:
            raise StageError("the backend is idle with requests in flight", code="backend_idle")
        for piece in pieces or ():
            self._tell(piece)

    def _tell(self, piece: Piece) -> None:
        tell = self._calls.get(piece.key)
        if tell is None:
            return
        if piece.finish_reason is not None:
            del self._calls[piece.key]
        tell(self._chunk(piece))

    def _chunk(self, piece: Piece) -> Chunk:
        versions = dict(piece.provenance.versions if piece.provenance is not None else self._backend.versions)
        return Chunk(
            text=piece.text,
            finish_reason=piece.finish_reason,
            output_tokens=piece.tokens,
            model=versions.pop("model", ""),
            versions=versions,
            likelihoods=piece.likelihoods,
            logprobs=piece.logprobs,
            others=piece.others,
        )

    def _fail(self, error: Exception) -> None:
        name = self._target.name
        _log.error("inference.model.failed", target=name, error_type=type(error).__name__, frames=frames(error))
        calls, self._calls = self._calls, {}
        for tell in calls.values():
            tell(BackendUnavailable(f"the model of target {name} failed in the middle of its answers"))
        self._backend.clear()


def _error_of(error: Exception) -> PenstockError:
    """An unexpected exception: logged here with its place, for the request a StageError."""
    if isinstance(error, PenstockError):
        return error
    _log.error("inference.request.failed", error_type=type(error).__name__, frames=frames(error))
    return StageError(f"unexpected {type(error).__name__} while generating; the log of stage inference has the place")
