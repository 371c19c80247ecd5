"""A TCP proxy on loopback that can be told to misbehave: slow, cut, half-open, reset now and then.

It stands between Kafka's clients and one broker, whose advertised address is the proxy's. It runs on an
event loop of its own thread and knows nothing of what passes through.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from penstock.local.ports import LOOPBACK

CHUNK = 65_536
TICK_S = 0.05
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, no time: closing sends RST, not FIN."""


@dataclass
class Weather:
    """What happens to what passes; changed while it runs."""

    latency_s: float = 0.0
    """Added to each piece, with as much jitter again."""
    reset_share: float = 0.0
    """Share of the pieces on which the connection is reset instead."""
    refuse: bool = False
    """New connections are reset at once."""
    swallow: bool = False
    """What the broker answers is thrown away; requests still reach it. The client sees a mute connection."""
    half_open: bool = False
    """Connections stay, and nothing passes either way."""


class Proxy:
    """Listens on a port of its own from the start of its context, and passes to `port` on loopback."""

    def __init__(self, port: int, *, listen: int, seed: int = 1) -> None:
        self._target = port
        self._listen = listen
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.weather = Weather()
        self.faults: Counter[str] = Counter()
        """What was done to connections and pieces, by kind."""

    @property
    def address(self) -> str:
        """`host:port` for the clients."""
        return f"{LOOPBACK}:{self._listen}"

    def cut(self) -> int:
        """Reset every open connection; how many there were."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(30)

    def __enter__(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self._listen)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self) -> int:
        count = len(self._open) // 2
        for writer in list(self._open):
            _reset(writer)
        self.faults["connections cut"] += count
        return count

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.weather.refuse:
            self.faults["connections refused"] += 1
            _reset(writer)
            return
        try:
            onward, answer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            _reset(writer)
            return
        self._open |= {writer, answer}
        for source, target, answers in ((reader, answer, False), (onward, writer, True)):
            task = asyncio.create_task(self._pass(source, target, (writer, answer), answers=answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        answers: bool,
    ) -> None:
        """Carry one direction until either side ends it or the weather does."""
        swallowed = False
        try:
            while piece := await source.read(CHUNK):
                while self.weather.half_open:  # noqa: ASYNC110  # another thread changes the weather
                    await asyncio.sleep(TICK_S)
                if self.weather.latency_s:
                    await asyncio.sleep(self.weather.latency_s * self._random.uniform(1, 2))
                if self._random.random() < self.weather.reset_share:
                    self.faults["resets"] += 1
                    break
                if answers and (swallowed or self.weather.swallow):
                    # a stream with a hole in it is none: it stays mute until it is cut
                    self.faults["answers swallowed"] += 0 if swallowed else 1
                    swallowed = True
                    continue
                target.write(piece)
                await target.drain()
        except (ConnectionError, TimeoutError):
            pass  # the other side has reset it: so do we, below
        finally:
            for writer in both:
                _reset(writer)
                self._open.discard(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what is under way is lost, as when a machine goes."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
