"""What the reader of a streamed answer has, so that an answer that begins again is not told again.

An answer begins again where its server died, or where a step failed and each request is tried alone. What the
reader has is held back from the second telling, and the numbers go on. A second telling that says something
else cannot take back the first: the stream ends there as cancelled, and the result has the answer. So a stream
is the whole of one answer or the beginning of one, never parts of two. Likelihoods are told once, too, by their number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from penstock.contracts.events import TokenLikelihood
from penstock.runtime.streams import MOST_LIKELIHOODS, likelihoods_in


class Streamed:
    """One answer's stream."""

    def __init__(self) -> None:
        self.sequence = 0
        """Of the next piece."""
        self.ended = False
        self._told: list[str] = []
        self._again: str | None = None
        """The second telling so far, while it is shorter than the first."""
        self._likelihoods = self._likelihoods_again = 0
        """How many likelihoods the reader has, or is owed; how many this telling has brought."""
        self._owed: list[TokenLikelihood] = []

    def begin_anew(self) -> None:
        """The answer begins again."""
        self._again = ""
        self._likelihoods_again = 0

    def note(self, more: Sequence[TokenLikelihood], whole: Sequence[TokenLikelihood] | None = None) -> None:
        """The likelihoods that came with a text; `whole`, at the end, are those of all of the answer."""
        if whole is None:
            known = self._likelihoods_again
            self._likelihoods_again += len(more)
            fresh = more[max(0, self._likelihoods - known) :]
        else:
            fresh = whole[self._likelihoods :]
        self._likelihoods += len(fresh)
        self._owed += fresh

    def likelihoods(self) -> tuple[TokenLikelihood, ...] | None:
        """To go with the next piece; None where there are none, or more than a piece may have."""
        owed, self._owed = tuple(self._owed), []
        return owed if 0 < likelihoods_in(owed) <= MOST_LIKELIHOODS else None

    def more(self, text: str, *, last: bool) -> str | None:
        """Of the answer's next text, what the reader has not; None where the telling has come to differ."""
        if self._again is not None:
            told, self._again = "".join(self._told), self._again + text
            if len(self._again) < len(told):
                return "" if told.startswith(self._again) and not last else None
            if not self._again.startswith(told):
                return None
            text, self._again = self._again[len(told) :], None
        self._told.append(text)
        return text


class Unfinished:
    """Streams of attempts that failed, by request and number of the answer; the oldest requests go first."""

    def __init__(self, most: int = 1_024) -> None:
        self._most = most
        self._streams: OrderedDict[str, dict[int, Streamed]] = OrderedDict()

    def put(self, request_id: str, streams: dict[int, Streamed]) -> None:
        """Keep streams, where one has begun."""
        if any(stream.sequence for stream in streams.values()):
            self._streams[request_id] = streams
        while len(self._streams) > self._most:
            self._streams.popitem(last=False)

    def take(self, request_id: str) -> dict[int, Streamed]:
        """The streams of an earlier attempt, set to begin anew; none where there was none."""
        streams = self._streams.pop(request_id, {})
        for stream in streams.values():
            stream.begin_anew()
        return streams
