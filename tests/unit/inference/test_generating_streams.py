"""What is streamed of the answers under way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.generation import Bench, Scripted, Sink, completed, event_of, job_of, local

from penstock.contracts.errors import BackendUnavailable
from penstock.contracts.events import CLOSING_SEQUENCE, Alternative, Likelihood, TokenLikelihood, TokensGenerated
from penstock.contracts.results import Status
from penstock.runtime.streams import MOST_LIKELIHOODS
from penstock_inference.backend import Piece


def test_streamed_pieces_are_numbered_and_join_to_the_answer() -> None:
    bench = Bench(local())
    streamed, _ = bench.run(event_of("a", stream=True, max_tokens=30), event_of("b", text="quiet"))
    pieces = bench.sink.of("a")
    assert len(pieces) > 5
    assert [piece.sequence for piece in pieces] == list(range(len(pieces)))
    assert "".join(piece.text for piece in pieces) == completed(streamed).completion.text
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert all(inbound is streamed.inbound for _, inbound in bench.sink.sent)


def test_steps_without_text_send_nothing_but_the_end_is_always_sent() -> None:
    bench = Bench(Scripted())
    bench.run(event_of("a", stream=True, max_tokens=5))
    said = [(piece.text, piece.finish_reason) for piece in bench.sink.of("a")]
    assert said == [("w1 ", None), ("w3 ", None), ("", "length")]


def test_a_stream_that_cannot_be_sent_does_not_end_the_answer() -> None:
    jobs = Bench(Scripted(), sink=Sink(RuntimeError("no broker"))).run(event_of("a", stream=True))
    assert completed(jobs[0]).completion.text == "w1 w3 w5 "


def test_an_answer_counts_as_given_once_its_stream_has_arrived() -> None:
    sink = Sink(slow=True)
    (job,) = Bench(Scripted(), sink=sink).run(event_of("a", stream=True))
    assert sink.of("a")[-1].finish_reason == "length"
    assert job.outcomes == []
    sink.waiting["a"]()
    assert completed(job).completion.text == "w1 w3 w5 "


def _streams(bench: Bench, answers: int) -> list[list[TokensGenerated]]:
    pieces = bench.sink.of("r1")
    streams = [[piece for piece in pieces if piece.index == index] for index in range(answers)]
    for stream in streams:
        assert [piece.sequence for piece in stream] == list(range(len(stream)))
        assert [piece.opening is not None for piece in stream] == [True, *[False] * (len(stream) - 1)]
        assert [piece.finish_reason is not None for piece in stream] == [*[False] * (len(stream) - 1), True]
    return streams


def test_several_answers_are_a_stream_each_as_they_come() -> None:
    bench = Bench(local())
    (job,) = bench.run(event_of(stream=True, n=3, temperature=1.0, max_tokens=12))
    outcome = completed(job)
    texts = [outcome.completion.text, *(other.text for other in outcome.others or ())]
    streams = _streams(bench, 3)
    assert ["".join(piece.text for piece in stream) for stream in streams] == texts
    assert len(set(texts)) > 1
    assert all(len(stream) > 2 for stream in streams), "further answers came whole"


class AtTheEnd(Scripted):
    """Tells of further answers with the last piece alone."""

    def step(self) -> list[Piece]:
        others = tuple(Alternative(text=f"answer {number}", finish_reason="stop") for number in (1, 2))
        return [replace(piece, others=others) if piece.finish_reason else piece for piece in super().step()]


def test_answers_that_are_told_of_at_the_end_are_streamed_whole() -> None:
    bench = Bench(AtTheEnd())
    bench.run(event_of(stream=True, n=3, max_tokens=4))
    first, *others = _streams(bench, 3)
    assert "".join(piece.text for piece in first) == "w1 w3 "
    assert [[piece.text for piece in stream] for stream in others] == [["answer 1"], ["answer 2"]]


@pytest.mark.parametrize(
    ("status", "ended"),
    [("cancelled", "cancelled"), ("expired", "expired"), ("failed", "failed"), ("blocked", "failed")],
)
def test_all_streams_of_a_request_without_an_answer_are_closed_wherever_they_stand(status: Status, ended: str) -> None:
    bench = Bench(Scripted())
    (job,) = bench.begin(event_of(stream=True, n=2, max_tokens=50))
    for _ in range(4):
        bench.generating.step()
    before = bench.sink.of("r1")
    bench.generating.cancel(job)
    bench.generating.end_streams(job.inbound, status)
    closing = bench.sink.of("r1")[len(before) :]
    assert [(piece.index, piece.sequence) for piece in closing] == [(0, CLOSING_SEQUENCE), (1, CLOSING_SEQUENCE)]
    assert [(piece.text, piece.finish_reason, piece.ended) for piece in closing] == [("", "cancelled", ended)] * 2


def test_the_stream_of_an_attempt_that_failed_is_not_gone_on_with_once_it_is_closed() -> None:
    backend = Scripted(faults={"gone": BackendUnavailable("gone")})
    bench = Bench(backend)
    first = job_of(event_of(stream=True))
    bench.generating.begin(first, 0.0)
    bench.generating.step()
    bench.generating.step()
    bench.run(event_of("r2", text="gone"))  # fails both
    bench.generating.end_streams(first.inbound, "failed")
    bench.run(event_of(stream=True, max_tokens=2))
    assert [piece.sequence for piece in bench.sink.of("r1")] == [0, CLOSING_SEQUENCE, 0]


def test_likelihoods_are_streamed_with_their_text_and_are_all_the_answers() -> None:
    bench = Bench(local())
    (job,) = bench.run(event_of(stream=True, n=3, temperature=1.0, logprobs=1, max_tokens=12))
    outcome = completed(job)
    whole = [outcome.completion.logprobs, *(other.logprobs for other in outcome.others or ())]
    for stream, likelihoods in zip(_streams(bench, 3), whole, strict=True):
        assert tuple(each for piece in stream for each in piece.logprobs or ()) == likelihoods
        assert sum(piece.logprobs is not None for piece in stream) > 2
        assert all(piece.text for piece in stream[:-1] if piece.logprobs)
    bench.run(event_of("plain", stream=True))
    assert all(piece.logprobs is None for piece in bench.sink.of("plain"))


def test_more_likelihoods_than_a_piece_may_have_are_left_to_the_result() -> None:
    class Kept(Scripted):
        def step(self) -> list[Piece]:
            beside = tuple(Likelihood(token="b", logprob=-1.0) for _ in range(MOST_LIKELIHOODS // 2))
            told = tuple(TokenLikelihood(token="a", logprob=-0.5, top_logprobs=beside) for _ in range(2))
            return [replace(piece, logprobs=told) if piece.finish_reason else piece for piece in super().step()]

    bench = Bench(Kept())
    (job,) = bench.run(event_of(stream=True, logprobs=1, max_tokens=2))
    assert [piece.logprobs for piece in bench.sink.of("r1")] == [None]
    assert len(completed(job).completion.logprobs or ()) == 2
