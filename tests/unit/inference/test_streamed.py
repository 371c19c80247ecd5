"""What a stream tells again, and where it ends."""

from __future__ import annotations

import pytest
from tests.support.generation import Scripted, Sink, completed, event_of, job_of

from penstock.contracts.errors import BackendUnavailable
from penstock.contracts.events import TokenLikelihood
from penstock_inference.backend import GenerationRequest, Piece, Provenance, RequestFault
from penstock_inference.generating import Generating
from penstock_inference.streamed import Streamed, Unfinished

PROVENANCE = Provenance("openai", "m@fp", "host", {"model": "two:m@fp"})


def _tell(stream: Streamed, *texts: str, last: bool = True) -> list[str | None]:
    return [stream.more(text, last=last and number == len(texts) - 1) for number, text in enumerate(texts)]


def test_a_first_telling_is_told_as_it_is() -> None:
    assert _tell(Streamed(), "a", "", "b") == ["a", "", "b"]


@pytest.mark.parametrize(
    ("again", "told"),
    [
        (["one two", " three"], ["", "three"]),
        (["one two three"], ["three"]),
        (["o", "ne two t", "hree"], ["", "t", "hree"]),
        (["one two "], [""]),
        (["one ", "six"], ["", None]),
        (["ten two three"], [None]),
        (["one"], [None]),
        ([""], [None]),
    ],
)
def test_a_second_telling_goes_on_where_the_first_stopped_or_ends(again: list[str], told: list[str | None]) -> None:
    stream = Streamed()
    _tell(stream, "one ", "two ", last=False)
    stream.begin_anew()
    assert _tell(stream, *again) == told


def test_a_third_telling_follows_the_longest() -> None:
    stream = Streamed()
    _tell(stream, "one ", last=False)
    stream.begin_anew()
    assert _tell(stream, "one two ", last=False) == ["two "]
    stream.begin_anew()
    assert _tell(stream, "one ", last=False) == [""]
    stream.begin_anew()
    assert _tell(stream, "one two three") == ["three"]


def _tokens(text: str) -> tuple[TokenLikelihood, ...]:
    return tuple(TokenLikelihood(token=letter, logprob=-1.0) for letter in text)


def test_likelihoods_of_a_second_telling_are_told_from_where_the_first_stopped() -> None:
    stream = Streamed()
    stream.note(_tokens("ab"))
    stream.note(_tokens("c"))
    assert stream.likelihoods() == _tokens("abc")
    stream.begin_anew()
    for more in ("a", "bcd"):
        stream.note(_tokens(more))
    assert stream.likelihoods() == _tokens("d")
    assert stream.likelihoods() is None
    stream.note((), _tokens("abcdef"))
    assert stream.likelihoods() == _tokens("ef")
    stream.begin_anew()
    stream.note((), _tokens("abcdefg"))
    assert stream.likelihoods() == _tokens("g")


def test_unfinished_streams_are_bounded_and_taken_once() -> None:
    kept = Unfinished(most=2)
    streams = [Streamed() for _ in range(4)]
    for number, stream in enumerate(streams[:3]):
        stream.sequence = 1
        kept.put(str(number), {0: stream, 1: Streamed()})
    kept.put("3", {0: streams[3]})  # nothing was told
    assert kept.take("0") == {}
    taken = kept.take("1")
    assert (taken[0], set(taken)) == (streams[1], {0, 1})
    assert kept.take("1") == kept.take("3") == {}


class Told(Scripted):
    """Says what the test gives it, step by step; an exception fails the one request."""

    def __init__(self, *steps: Piece | Exception | None) -> None:
        super().__init__()
        self.steps = list(steps)
        self.requests: list[GenerationRequest] = []

    def add(self, request: GenerationRequest) -> int:
        self.requests.append(request)
        return super().add(request)

    def step(self) -> list[Piece] | None:
        said = self.steps.pop(0)
        if said is None:
            return None
        if isinstance(said, Exception):
            raise RequestFault(self.requests[-1].key, said)
        return [said]


def _generating(backend: Told, sink: Sink) -> Generating:
    return Generating(backend, sink, lambda: 0.0)


def _said(sink: Sink) -> list[tuple[int, str, str | None]]:
    return [(piece.sequence, piece.text, piece.finish_reason) for piece in sink.of("r1")]


def test_an_answer_that_begins_again_is_streamed_once_and_complete() -> None:
    backend, sink = (
        Told(
            Piece(1, "one ", 1),
            Piece(1, "two ", 2),
            None,
            Piece(1, "one ", 1, anew=True),
            Piece(1, "two three", 3, "stop", prompt_tokens=11, provenance=PROVENANCE),
        ),
        Sink(),
    )
    generating = _generating(backend, sink)
    job = job_of(event_of(stream=True))
    generating.begin(job, 0.0)
    while len(generating):
        generating.step()
    done = completed(job)
    assert done.completion.text == "one two three"
    assert (done.completion.usage.prompt_tokens, done.completion.usage.completion_tokens) == (11, 3)
    assert done.context.versions["model"] == "two:m@fp"
    assert _said(sink) == [(0, "one ", None), (1, "two ", None), (2, "three", "stop")]
    assert job.firsts == 1


def test_an_answer_that_turns_out_different_ends_the_stream_and_is_in_the_result() -> None:
    backend, sink = Told(Piece(1, "one ", 1), Piece(1, "six ", 1, anew=True), Piece(1, "seven", 2, "stop")), Sink()
    generating = _generating(backend, sink)
    job = job_of(event_of(stream=True))
    generating.begin(job, 0.0)
    while len(generating):
        generating.step()
    assert completed(job).completion.text == "six seven"
    assert _said(sink) == [(0, "one ", None), (1, "", "cancelled")]


def test_the_next_attempt_at_a_request_goes_on_with_its_stream() -> None:
    failed = BackendUnavailable("gone")
    backend, sink = Told(Piece(1, "one ", 1), failed, Piece(2, "one ", 1), Piece(2, "two", 2, "stop")), Sink()
    generating = _generating(backend, sink)
    first, second = job_of(event_of(stream=True)), job_of(event_of(stream=True))
    for job in (first, second):
        generating.begin(job, 0.0)
        while len(generating):
            generating.step()
    assert first.outcome is failed
    assert completed(second).completion.text == "one two"
    assert _said(sink) == [(0, "one ", None), (1, "two", "stop")]


def test_the_backend_is_told_whose_request_it_is() -> None:
    backend = Told(Piece(1, "x", 1, "stop"))
    generating = _generating(backend, Sink())
    generating.begin(job_of(event_of()), 0.0)
    (request,) = backend.requests
    assert (request.request_id, request.tenant, request.input_tokens) == ("r1", "default", 7)
