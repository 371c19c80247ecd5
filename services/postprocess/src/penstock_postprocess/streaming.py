"""Streamed answers as the one who asked shall see them: restored, and no further than the result will go along.

What is told is always a beginning of what the result's content would be; at the end the stage's own function makes
that content, and the stream is `completed` only where all of it was told. Likelihoods are told as they are, with the
text of their tokens: a placeholder stays one in them, as it does in the result's. Screening is safety's work; order,
repeats and ends are the runtime's (`penstock.runtime.streams`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from penstock.contracts.errors import PenstockError
from penstock.contracts.events import Alternative, FinishReason, StreamOpening, TokenLikelihood
from penstock.contracts.results import ChoiceLogprobs
from penstock.contracts.streams import StreamState, TokensRestored, TokensScreened
from penstock.runtime.streams import MOST_CHARACTERS, HeldLikelihoods, StreamOf
from penstock.vault import VaultKeys
from penstock_postprocess.stage import PostprocessStage

_LOOKS = 64
"""A long answer is looked through again only when it has grown by this share, which bounds the work."""


class RestoredStream:
    """Implements `penstock.runtime.streams.StreamWork`."""

    def __init__(self, stage: PostprocessStage, keys: VaultKeys, whose: StreamOf, opening: StreamOpening) -> None:
        """Raises StageError `vault_unreadable`."""
        self._stage = stage
        self._whose = whose
        self._parameters = opening.parameters
        self._entities: Mapping[str, str] = {}
        if opening.vault is not None:
            vault = keys.open(opening.vault, tenant=whose.tenant, conversation=whose.conversation_id)
            self._entities = vault.entities
        self._text = ""
        self._likelihoods = HeldLikelihoods()
        self._looked = 0
        self._told = ""
        self._digest = hashlib.sha256()
        self._sequence = 0
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the last piece was told."""
        return self._ended

    def push(self, piece: TokensScreened) -> Sequence[TokensRestored]:
        """The next piece in, and what may be told."""
        self._text += piece.text
        if len(self._text) > MOST_CHARACTERS:
            return self.end("withdrawn")
        self._likelihoods.put(piece.logprobs, len(self._text))
        if piece.state == "completed":
            return self._finish(piece.finish_reason or "stop")
        if piece.state is not None:
            return self.end(piece.state)
        if (len(self._text) - self._looked) * _LOOKS < self._looked:
            return ()
        self._looked = len(self._text)
        beginning, covered = self._stage.beginning_of(self._text, self._parameters, self._entities)
        if len(beginning) <= len(self._told) or not beginning.startswith(self._told):
            return ()
        return (self._piece(beginning[len(self._told) :], self._likelihoods.take(covered)),)

    def end(self, state: StreamState) -> Sequence[TokensRestored]:
        """The end; what is held is dropped."""
        return (self._piece("", state=state),)

    def _finish(self, reason: FinishReason) -> Sequence[TokensRestored]:
        answer = Alternative(text=self._text, finish_reason=reason)
        try:
            content, _ = self._stage.content_of(answer, self._parameters, self._entities, Counter())
        except PenstockError:  # the result says what is wrong with the answer
            return self.end("failed")
        if not content.startswith(self._told):
            return self.end("withdrawn")
        likelihoods = self._likelihoods.take(len(self._text))
        return (self._piece(content[len(self._told) :], likelihoods, state="completed", reason=reason),)

    def _piece(
        self,
        text: str,
        likelihoods: tuple[TokenLikelihood, ...] | None = None,
        *,
        state: StreamState | None = None,
        reason: FinishReason | None = None,
    ) -> TokensRestored:
        sequence, self._sequence = self._sequence, self._sequence + 1
        self._told += text
        self._digest.update(text.encode("utf-8", "replace"))
        self._ended = state is not None
        logprobs = None if likelihoods is None else ChoiceLogprobs(content=likelihoods)
        if state is None:
            return TokensRestored(
                request_id=self._whose.request_id,
                index=self._whose.index,
                sequence=sequence,
                text=text,
                logprobs=logprobs,
            )
        return TokensRestored(
            request_id=self._whose.request_id,
            index=self._whose.index,
            sequence=sequence,
            text=text,
            logprobs=logprobs,
            final=True,
            state=state,
            finish_reason=reason,
            characters=len(self._told),
            sha256=self._digest.hexdigest(),
        )


def refused(whose: StreamOf) -> TokensRestored:
    """The one piece of a stream that cannot be begun."""
    empty = hashlib.sha256().hexdigest()
    return TokensRestored(
        request_id=whose.request_id,
        index=whose.index,
        sequence=0,
        text="",
        final=True,
        state="failed",
        characters=0,
        sha256=empty,
    )
