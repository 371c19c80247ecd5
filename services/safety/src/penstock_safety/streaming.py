"""Streamed answers: text goes on when the sentence it stands in is complete and has been screened.

The detectors and the policy are those of whole answers. They see the held text with what stands before it, so that
nothing as long as the overlap of two windows is missed; at the end they see the whole answer, as the stage does, and
the stream is `completed` only where it told exactly what the stage lets pass. Text that is to be blocked or redacted
is never told: a stream ends before it, or has `[REDACTED:label]` in its place. What was told cannot be taken back:
where it turns out to be part of what is redacted, the stream is withdrawn.

Likelihoods go with the text of their tokens. A whole answer that is redacted has none; a stream has none from the
piece on in which the first redaction stands.

Restoring placeholders is postprocess's work; order, repeats and ends are the runtime's (`penstock.runtime.streams`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from penstock.contracts.events import FinishReason, StreamOpening, TokenLikelihood, TokensGenerated, Verdict
from penstock.contracts.streams import StreamState, TokensScreened
from penstock.runtime.streams import MOST_CHARACTERS, HeldLikelihoods, StreamOf
from penstock_safety.stage import redact

Judge = Callable[[str, str], list[Verdict]]
"""Text and tenant -> what the policy makes of the text as a response; raises RetriableError where it cannot be seen."""

MOST_HELD = 32_768
"""Characters; a stream that would have to hold more is withdrawn, which bounds what screening it may cost."""

# looking back instead of `[.!?…]+`, which takes quadratic time for a run of marks
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]*_]*\s+|[。！？।؟]+[”』」）]*|\n")  # noqa: RUF001  # other scripts' marks
_SPACE = re.compile(r"\s")


class ScreenedStream:
    """Implements `penstock.runtime.streams.StreamWork`."""

    def __init__(self, judge: Judge, whose: StreamOf, opening: StreamOpening, *, hold: int, overlap: int) -> None:
        """`hold`: characters after which a sentence that does not end is told up to a word's end, half of them held.

        `overlap`: characters of what was told that the detectors see again.
        """
        self._judge = judge
        self._whose = whose
        self._opening: StreamOpening | None = opening
        self._hold = hold
        self._overlap = overlap
        self._text = ""
        self._done = 0
        """How much of the text was told, or redacted."""
        self._told = ""
        self._redacted: list[tuple[int, int]] = []
        self._likelihoods = HeldLikelihoods()
        self._sequence = 0
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the last piece was told."""
        return self._ended

    def push(self, piece: TokensGenerated) -> Sequence[TokensScreened]:
        """The next piece in, and what may go on; raises RetriableError where the detectors did not answer."""
        text = self._text + piece.text
        if piece.finish_reason == "cancelled":
            return self.end("cancelled")
        if len(text) > MOST_CHARACTERS:
            return self.end("withdrawn")
        if piece.finish_reason is not None:  # a kept answer may come in one piece, however long
            return self._finish(text, piece.finish_reason, piece.logprobs)
        if len(text) - self._done > MOST_HELD:
            return self.end("withdrawn")
        cut = self._cut(text)
        if cut == self._done:
            self._text = text
            self._likelihoods.put(piece.logprobs, len(text))
            return ()
        start = max(0, self._done - self._overlap)
        verdicts = [_moved(verdict, start) for verdict in self._judge(text[start:], self._whose.tenant)]
        self._text = text
        self._likelihoods.put(piece.logprobs, len(text))
        if any(verdict.action == "block" and verdict.start < cut for verdict in verdicts):
            return self.end("blocked")
        redacted = [verdict for verdict in verdicts if verdict.action == "redact"]
        if any(self._was_told(verdict) for verdict in redacted):
            return self.end("withdrawn")
        for verdict in sorted(redacted, key=lambda one: one.start, reverse=True):
            if verdict.start < cut <= verdict.end:  # it may go on
                cut = max(self._done, verdict.start)
        own = [_moved(verdict, -self._done) for verdict in redacted if self._done <= verdict.start < cut]
        return self._tell(redact(text[self._done : cut], own), cut, own)

    def end(self, state: StreamState) -> Sequence[TokensScreened]:
        """The end; what is held is dropped."""
        return (self._piece("", state=state),)

    def _finish(
        self, text: str, reason: FinishReason, likelihoods: tuple[TokenLikelihood, ...] | None
    ) -> Sequence[TokensScreened]:
        verdicts = self._judge(text, self._whose.tenant)
        if any(verdict.action == "block" for verdict in verdicts):
            return self.end("blocked")
        whole = redact(text, verdicts)
        if not whole.startswith(self._told):
            return self.end("withdrawn")
        self._likelihoods.put(likelihoods, len(text))
        if whole != text:
            self._likelihoods.drop()
        self._done = len(text)
        return (self._piece(whole[len(self._told) :], state="completed", reason=reason),)

    def _cut(self, text: str) -> int:
        """Up to where the text may be told once it is screened: the last end of a sentence or line."""
        ends = [found.end() for found in _SENTENCE_END.finditer(text, self._done)]
        if ends:
            return ends[-1]
        if len(text) - self._done <= self._hold:
            return self._done
        words = [found.end() for found in _SPACE.finditer(text, self._done, len(text) - self._hold // 2)]
        return words[-1] if words else self._done

    def _was_told(self, verdict: Verdict) -> bool:
        """Whether a part of what is to be redacted was told, or is the end of what was redacted shorter."""
        return verdict.start < self._done and not any(
            start <= verdict.start and verdict.end <= end for start, end in self._redacted
        )

    def _tell(self, text: str, cut: int, redacted: Sequence[Verdict]) -> Sequence[TokensScreened]:
        if redacted:
            self._likelihoods.drop()
        self._redacted += [(verdict.start + self._done, verdict.end + self._done) for verdict in redacted]
        self._done = cut
        if not text:
            return ()
        self._told += text
        return (self._piece(text),)

    def _piece(
        self, text: str, *, state: StreamState | None = None, reason: FinishReason | None = None
    ) -> TokensScreened:
        opening, self._opening = self._opening, None
        sequence, self._sequence = self._sequence, self._sequence + 1
        self._ended = state is not None
        return TokensScreened(
            request_id=self._whose.request_id,
            index=self._whose.index,
            sequence=sequence,
            text=text,
            state=state,
            finish_reason=reason,
            opening=opening,
            logprobs=self._likelihoods.take(self._done) if text or state == "completed" else None,
        )


def refused(whose: StreamOf) -> TokensScreened:
    """The one piece of a stream that cannot be begun."""
    return TokensScreened(request_id=whose.request_id, index=whose.index, sequence=0, text="", state="failed")


def _moved(verdict: Verdict, by: int) -> Verdict:
    return verdict.having(start=verdict.start + by, end=verdict.end + by)
