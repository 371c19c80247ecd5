"""A backend in front of another: what was answered before is answered again, what is new is kept.

A kept answer takes the way of every other: it leaves as pieces, becomes an event, and is screened and restored for
the request that asks. Nothing is asked of the backend behind, so it costs no tokens and no budget.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from penstock.contracts.events import Cached, OutputFormat
from penstock.embeddings.encoder import Embeddings
from penstock_inference.backend import Backend, FinishedBy, GenerationRequest, Piece, RequestFault
from penstock_inference.caching.answers import Answer, Answers, Bounds
from penstock_inference.caching.keys import is_determined, key_of, question_of
from penstock_inference.caching.meters import Meters
from penstock_inference.caching.semantic import Question, Semantic
from penstock_inference.text import SafeText

PIECE_CHARACTERS = 64
"""Of a kept answer to a request that streams."""
STEP_S = 0.1
"""How long a step waits at most for a question to be embedded."""


@dataclass(slots=True)
class _Recording:
    """An answer that is being generated, for the answers kept."""

    request: GenerationRequest
    key: bytes
    question: Question | None = None
    vector: Embeddings | None = None
    """Of the question, once it is embedded."""
    prompt_tokens: int = 0
    texts: list[str] = field(default_factory=list)


class Cache:
    """What is kept, and for whom: shared by the models of a process. Used by one thread."""

    def __init__(
        self, bounds: Bounds, meters: Meters, *, sampled: bool = False, semantic: Semantic | None = None
    ) -> None:
        """`sampled` also serves requests whose answer chance decides; they then all get the same one."""
        self.answers = Answers(bounds, forgotten=semantic.forget if semantic is not None else lambda key: None)
        self.semantic = semantic
        self.meters = meters
        self._sampled = sampled
        meters.watch(self.answers)

    def takes(self, request: GenerationRequest) -> bool:
        """Whether a request may be answered from here."""
        return request.parameters.cache is not False and (self._sampled or is_determined(request.parameters))

    def close(self) -> None:
        """Let go of the encoder; a second time does nothing."""
        if self.semantic is not None:
            self.semantic.close()


class CachingBackend:
    """Implements `backend.Backend`; `source` names what the backend behind generates with just now."""

    def __init__(self, behind: Backend, cache: Cache, source: Callable[[], str]) -> None:
        self._behind = behind
        self._cache = cache
        self._source = source
        self._running: dict[int, _Recording | None] = {}
        self._hits: dict[int, list[Piece]] = {}
        self._asked: dict[int, _Recording] = {}
        """Requests whose question is being embedded."""
        self._embedded: deque[tuple[_Recording, Embeddings | None]] = deque()
        self._change = threading.Condition()
        self._woken = False
        self._owed = False
        """The backend behind has the next step, however many hits there are."""

    @property
    def rows(self) -> int:
        """As of the backend behind."""
        return self._behind.rows

    @property
    def versions(self) -> Mapping[str, str]:
        """As of the backend behind, and the encoder."""
        semantic = self._cache.semantic
        return self._behind.versions if semantic is None else {**self._behind.versions, "encoder": semantic.digest}

    def add(self, request: GenerationRequest) -> int:
        """Answer a request from what is kept, else queue it; raises what the backend behind raises."""
        if request.key in self._running or request.key in self._hits or request.key in self._asked:
            raise ValueError(f"key {request.key} is running already")
        if not self._cache.takes(request):
            self._cache.meters.asked("bypass")
            return self._start(request, None)
        source = self._source()
        key = key_of(request, source)
        answer = self._cache.answers.get(key)
        if answer is not None:
            self._hit(request, answer, "exact")
            return answer.prompt_tokens
        semantic = self._cache.semantic
        question = question_of(request, source) if semantic is not None else None
        recording = _Recording(request, key, question)
        if semantic is not None and question is not None:
            self._asked[request.key] = recording
            semantic.ask(question, partial(self._come, recording))
            return request.input_tokens
        self._cache.meters.asked("miss")
        return self._start(request, recording)

    def step(self) -> Sequence[Piece] | None:
        """Kept answers whole, and a step of the backend behind; those never keep this one from its turn.

        None where a question is still being embedded and nothing else is there to do.
        """
        self._settle()
        came: Sequence[Piece] | None = ()
        if self._running and (self._owed or not self._hits):
            came = self._behind.step()
            self._owed = False
            came = came and [self._note(piece) for piece in came]
        elif self._running:
            self._owed = True
        elif self._asked and not self._hits:
            with self._change:
                self._change.wait_for(lambda: self._embedded or self._woken, STEP_S)
                self._woken = False
            return None
        hits = [piece for pieces in self._hits.values() for piece in pieces]
        self._hits.clear()
        return [*(came or ()), *hits] if came is not None or hits else None

    def cancel(self, key: int) -> None:
        """Give a request up."""
        self._hits.pop(key, None)
        self._asked.pop(key, None)
        if key in self._running:
            del self._running[key]
            self._behind.cancel(key)

    def clear(self) -> None:
        """Give all requests up; what is kept stays."""
        self._hits.clear()
        self._asked.clear()
        self._running.clear()
        self._behind.clear()

    def wake(self) -> None:
        """Have a step that waits return; from any thread."""
        with self._change:
            self._woken = True
            self._change.notify()
        self._behind.wake()

    def close(self) -> None:
        """Close the backend behind, and what embeds."""
        self._cache.close()
        self._behind.close()

    def _come(self, recording: _Recording, vector: Embeddings | None) -> None:
        """A question is embedded, or cannot be; in the encoder's thread."""
        with self._change:
            self._embedded.append((recording, vector))
            self._change.notify()
        self._behind.wake()

    def _settle(self) -> None:
        """Answer the questions that are embedded, or queue their requests; raises RequestFault with one's error."""
        while self._embedded:
            recording, vector = self._embedded.popleft()
            request = recording.request
            if self._asked.get(request.key) is not recording:
                continue  # given up meanwhile
            del self._asked[request.key]
            answer = self._meant(recording, vector)
            if answer is not None:
                # it was asked in other words: the count is of these
                tokens = request.input_tokens or answer.prompt_tokens
                self._hit(request, replace(answer, prompt_tokens=tokens), "semantic")
                continue
            recording.vector = vector
            self._cache.meters.asked("miss")
            try:
                self._start(request, recording)
            except Exception as error:  # whatever it is, it is this request's alone
                raise RequestFault(request.key, error) from error

    def _meant(self, recording: _Recording, vector: Embeddings | None) -> Answer | None:
        """A kept answer to the same question in other words."""
        semantic, question = self._cache.semantic, recording.question
        if semantic is None or question is None or vector is None:
            return None
        key = semantic.find(question, vector)
        return None if key is None else self._cache.answers.get(key)

    def _start(self, request: GenerationRequest, recording: _Recording | None) -> int:
        tokens = self._behind.add(request)
        self._running[request.key] = recording
        if recording is not None:
            recording.prompt_tokens = tokens
        return tokens

    def _hit(self, request: GenerationRequest, answer: Answer, cached: Cached) -> None:
        self._cache.meters.asked(cached)
        self._hits[request.key] = _pieces(request, answer, cached)

    def _note(self, piece: Piece) -> Piece:
        """Write an answer along, and keep it at its end; the piece, at the end with the prompt's tokens."""
        recording = self._running.get(piece.key)
        if recording is not None:
            if piece.anew:
                recording.texts.clear()
            recording.texts.append(piece.text)
        finish_reason = piece.finish_reason
        if finish_reason is None:
            return piece
        self._running.pop(piece.key, None)
        if recording is None:
            return piece
        if piece.prompt_tokens is None:
            # what `add` said of a question that was still to be embedded was an estimate
            piece = replace(piece, prompt_tokens=recording.prompt_tokens)
        self._keep(recording, piece, finish_reason)
        return piece

    def _keep(self, recording: _Recording, last: Piece, finish_reason: FinishedBy) -> None:
        answer = Answer(
            "".join(recording.texts),
            finish_reason,
            last.tokens,
            last.prompt_tokens or 0,
            last.logprobs,
            last.others,
            last.provenance,
        )
        output = recording.request.parameters.output
        if all(_fits(text, output) for text in (answer.text, *(other.text for other in answer.others))):
            self._put(recording, answer)

    def _put(self, recording: _Recording, answer: Answer) -> None:
        semantic, question, vector = self._cache.semantic, recording.question, recording.vector
        size = 0 if vector is None else vector.nbytes
        if not self._cache.answers.put(recording.key, answer, size):
            return
        if semantic is not None and question is not None and vector is not None:
            semantic.add(question, recording.key, vector)


def _pieces(request: GenerationRequest, answer: Answer, cached: Cached) -> list[Piece]:
    """A kept answer as the pieces of a generation; a placeholder is in one of them, never in two."""
    text = SafeText(())
    size = PIECE_CHARACTERS if request.parameters.stream else max(1, len(answer.text))
    told = [text.add(answer.text[start : start + size]) for start in range(0, len(answer.text), size)]
    pieces = [Piece(request.key, each, answer.tokens, cached=cached) for each in told if each]
    last = Piece(
        request.key,
        text.finish(),
        answer.tokens,
        answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        provenance=answer.provenance,
        logprobs=answer.logprobs,
        others=answer.others,
        cached=cached,
    )
    if not last.text and pieces:
        last = replace(last, text=pieces.pop().text)
    return [*pieces, last]


def _fits(text: str, output: OutputFormat) -> bool:
    """Whether an answer is what was asked for: one that is no JSON would fail again for everybody."""
    if output.type == "text":
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
