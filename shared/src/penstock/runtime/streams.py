"""Streams of pieces under way in one service: each in order, each piece once, each with an end.

Plain bookkeeping without Kafka (`relay` has that): which streams are open, where each began in its partition, and
what a repeat, a gap or a long silence means. What is made of the pieces is the service's own work, a `StreamWork`,
whose outputs depend on nothing but the pieces: one that is begun again after a crash tells the same under the same
sequence numbers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from penstock.contracts.base import Message
from penstock.contracts.errors import PenstockError, RetriableError
from penstock.contracts.events import StreamOpening, TokenLikelihood, TokensGenerated
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.streams import StreamState, TokensScreened
from penstock.runtime.logging import frames

_log = structlog.get_logger()

P = TypeVar("P", bound=TokensGenerated | TokensScreened)
P_contra = TypeVar("P_contra", bound=TokensGenerated | TokensScreened, contravariant=True)
Place = tuple[str, int]
"""Topic and partition."""
_Name = tuple[Place, str, int]

MOST_CHARACTERS = 524_288
"""Of one stream; a longer one is withdrawn, the result has the answer."""


MOST_LIKELIHOODS = 16_384
"""In one piece: tokens, and those beside them. About 2 MiB."""


def likelihoods_in(tokens: Sequence[TokenLikelihood]) -> int:
    """How many there are, those beside the tokens among them."""
    return sum(1 + len(each.top_logprobs) for each in tokens)


class HeldLikelihoods:
    """The likelihoods of one stream's tokens, until the text of these is told.

    Once more are held than one piece may have, the stream has none any more: its result has all.
    """

    def __init__(self) -> None:
        self._held: deque[tuple[int, tuple[TokenLikelihood, ...]]] = deque()
        self._weight = 0
        self._dropped = False

    def put(self, tokens: tuple[TokenLikelihood, ...] | None, end: int) -> None:
        """Hold those of tokens whose text ends at most `end` characters into the answer."""
        if not tokens or self._dropped:
            return
        self._held.append((end, tokens))
        self._weight += likelihoods_in(tokens)
        if self._weight > MOST_LIKELIHOODS:
            self.drop()

    def take(self, told: int) -> tuple[TokenLikelihood, ...] | None:
        """Those of tokens within the first `told` characters that were not taken before; None where there are none."""
        taken: list[TokenLikelihood] = []
        while self._held and self._held[0][0] <= told:
            taken += self._held.popleft()[1]
        self._weight -= likelihoods_in(taken)
        return tuple(taken) or None

    def drop(self) -> None:
        """Have none from here on."""
        self._held.clear()
        self._weight = 0
        self._dropped = True


@dataclass(frozen=True, slots=True)
class StreamOf:
    """Whose stream it is."""

    request_id: str
    conversation_id: str
    tenant: str
    index: int = 0
    """Which of several answers."""


class StreamWork(Protocol[P_contra]):
    """One stream in a service."""

    def push(self, piece: P_contra) -> Sequence[Message]:
        """The next piece in; what there is to tell now, if anything, the end with what the last piece brought.

        Raises RetriableError where it could not be done now, having changed nothing; any other error ends the stream.
        """
        ...

    def end(self, state: StreamState) -> Sequence[Message]:
        """The end, before the last piece came."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the last piece was told."""
        ...


Begin = Callable[[StreamOf, StreamOpening], StreamWork[P]]
"""Makes the work of one stream; raises PenstockError where it cannot be told at all."""
Refuse = Callable[[StreamOf], Message]
"""The one piece, `failed`, of a stream that cannot be begun."""


@dataclass(slots=True)
class _Open(Generic[P]):
    work: StreamWork[P]
    place: Place
    offset: int
    """Of its first piece: after a restart it is read again from there."""
    began: float
    heard: float
    told: bool = False
    seen: list[int] = field(default_factory=list)
    """A digest of each piece so far."""
    headers: tuple[tuple[str, bytes | None], ...] = ()
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A piece to publish, with the key and headers of the stream's first."""

    message: Message
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Streams(Generic[P]):
    """All open streams of a process. `monotonic` gives seconds; used by one thread."""

    def __init__(
        self,
        begin: Begin[P],
        refuse: Refuse,
        *,
        idle_s: float,
        most: int,
        ended: Callable[[StreamState], None] = lambda _: None,
        first_text: Callable[[float], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ended` is called with the state of each stream that ends, `first_text` with the seconds that a stream's
        first text was held here. Beyond `most` open streams the one longest unheard of expires.
        """
        self._begin = begin
        self._refuse = refuse
        self._idle_s = idle_s
        self._most = most
        self._ended = ended
        self._first_text = first_text
        self._monotonic = monotonic
        self._open: dict[_Name, _Open[P]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take(
        self,
        piece: P,
        *,
        place: Place,
        offset: int,
        key: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...],
    ) -> list[Told]:
        """A piece in, in the order of its partition; what there is to tell.

        Raises RetriableError where it could not be done now: take the same piece again, or `give_up` its stream.
        """
        name = (place, piece.request_id, piece.index)
        if isinstance(piece, TokensGenerated) and piece.ended is not None:
            return self._close(name, piece.ended)
        stream = self._open.get(name)
        if stream is None:
            if piece.sequence:
                return []  # of a stream that has ended, or whose beginning is not kept any more
            found = RequestHeaders.salvage(headers)
            whose = StreamOf(
                piece.request_id, found.conversation_id or piece.request_id, found.tenant or "default", piece.index
            )
            work = self._begun(whose, piece.opening)
            if work is None:
                self._ended("failed")
                return [Told(self._refuse(whose), key, headers)]
            now = self._monotonic()
            stream = _Open(work, place, offset, now, now, headers=headers, key=key)
            self._open[name] = stream
        digest = hash((piece.text, piece.finish_reason))
        if piece.sequence < len(stream.seen):
            # told again after a crash; where the second telling differs, no reader can have both
            return [] if stream.seen[piece.sequence] == digest else self._close(name, "withdrawn")
        if piece.sequence > len(stream.seen):
            return self._close(name, "withdrawn")
        try:
            told = stream.work.push(piece)
        except RetriableError:
            raise
        except Exception as error:  # noqa: BLE001  # a bug, or a vault that does not open: without its message
            _log.error("runtime.stream.failed", error_type=type(error).__name__, frames=frames(error))
            return self._close(name, "failed")
        stream.seen.append(digest)
        stream.heard = self._monotonic()
        if told and not stream.told:
            stream.told = True
            self._first_text(stream.heard - stream.began)
        if stream.work.ended:
            del self._open[name]
            self._count(told)
        return self._overfull([Told(message, stream.key, stream.headers) for message in told])

    def give_up(self, piece: P, place: Place) -> list[Told]:
        """End the stream of a piece that `take` could not be done with."""
        return self._close((place, piece.request_id, piece.index), "failed")

    def expire(self) -> list[Told]:
        """End what has not been heard of for too long."""
        latest = self._monotonic() - self._idle_s
        old = [name for name, stream in self._open.items() if stream.heard <= latest]
        return [told for name in old for told in self._close(name, "expired")]

    def oldest(self, place: Place) -> int | None:
        """The offset from which a partition is to be read again after a restart; None where no stream is open."""
        return min((stream.offset for stream in self._open.values() if stream.place == place), default=None)

    def drop(self, places: Sequence[Place]) -> None:
        """Forget the streams of partitions that are another's now."""
        for name in [name for name in self._open if name[0] in places]:
            del self._open[name]

    def _begun(self, whose: StreamOf, opening: StreamOpening | None) -> StreamWork[P] | None:
        if opening is None:  # of a release that did not tell it
            return None
        try:
            return self._begin(whose, opening)
        except PenstockError as error:
            _log.error("runtime.stream.refused", code=error.code)
            return None

    def _close(self, name: _Name, state: StreamState) -> list[Told]:
        stream = self._open.pop(name, None)
        if stream is None:
            return []
        told = stream.work.end(state)
        self._count(told)
        return [Told(message, stream.key, stream.headers) for message in told]

    def _count(self, told: Sequence[Message]) -> None:
        state = getattr(told[-1], "state", None) if told else None
        if state is not None:
            self._ended(state)

    def _overfull(self, told: list[Told]) -> list[Told]:
        if len(self._open) <= self._most:
            return told
        unheard = min(self._open, key=lambda name: self._open[name].heard)
        _log.warning("runtime.streams.full", most=self._most)
        return [*told, *self._close(unheard, "expired")]
