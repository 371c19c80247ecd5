"""`penstock.runtime.streams`: each piece once and in order, each stream with an end, and from where to read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest

from penstock.contracts.errors import BackendUnavailable, StageError
from penstock.contracts.events import (
    CLOSING_SEQUENCE,
    FinishReason,
    GenerationParameters,
    Likelihood,
    StreamOpening,
    TokenLikelihood,
    TokensGenerated,
)
from penstock.contracts.streams import StreamState, TokensScreened
from penstock.runtime.streams import MOST_LIKELIHOODS, HeldLikelihoods, StreamOf, Streams, Told

OPENING = StreamOpening(parameters=GenerationParameters(model="m", max_tokens=5))
PLACE = ("llm.tokens", 0)
HEADERS = ((("request-id", b"r")), ("conversation-id", b"c"), ("tenant", b"acme"))


class Echo:
    """Tells every piece as it is."""

    def __init__(self, whose: StreamOf) -> None:
        self.whose = whose
        self.failing: Exception | None = None
        self.ended = False

    def push(self, piece: TokensGenerated) -> Sequence[TokensScreened]:
        if self.failing is not None:
            raise self.failing
        self.ended = piece.finish_reason is not None
        return (self._piece(piece.text, "completed" if self.ended else None),)

    def end(self, state: StreamState) -> Sequence[TokensScreened]:
        self.ended = True
        return (self._piece("", state),)

    def _piece(self, text: str, state: StreamState | None) -> TokensScreened:
        return TokensScreened(request_id=self.whose.request_id, sequence=0, text=text, state=state)


@dataclass
class Bench:
    """Streams whose clock is set by hand."""

    now: float = 0.0
    works: list[Echo] = field(default_factory=list)
    ends: list[StreamState] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    offset: int = 100
    most: int = 10

    def __post_init__(self) -> None:
        self.streams: Streams[TokensGenerated] = Streams(
            self._begin,
            lambda whose: TokensScreened(request_id=whose.request_id, sequence=0, text="", state="failed"),
            idle_s=60,
            most=self.most,
            ended=self.ends.append,
            first_text=self.held.append,
            monotonic=lambda: self.now,
        )

    def _begin(self, whose: StreamOf, opening: StreamOpening) -> Echo:
        if whose.request_id == "closed":
            raise StageError("no", code="vault_unreadable")
        self.works.append(Echo(whose))
        return self.works[-1]

    def take(
        self,
        sequence: int,
        text: str = "",
        *,
        request_id: str = "r",
        index: int = 0,
        last: FinishReason | None = None,
        opening: StreamOpening | None = OPENING,
    ) -> list[tuple[str, StreamState | None]]:
        piece = TokensGenerated(
            request_id=request_id,
            index=index,
            sequence=sequence,
            text=text,
            finish_reason=last,
            opening=None if sequence else opening,
        )
        self.offset += 1
        return said(self.streams.take(piece, place=PLACE, offset=self.offset, key=b"c", headers=HEADERS))


def said(told: list[Told]) -> list[tuple[str, StreamState | None]]:
    pieces = [one.message for one in told]
    assert all(isinstance(piece, TokensScreened) for piece in pieces)
    return [(piece.text, piece.state) for piece in pieces if isinstance(piece, TokensScreened)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_stream_goes_from_its_first_piece_to_its_last(bench: Bench) -> None:
    assert bench.take(0, "a") == [("a", None)]
    assert bench.works[0].whose == StreamOf("r", "c", "acme")
    bench.now = 2.0
    assert bench.take(1, "b", last="stop") == [("b", "completed")]
    assert (bench.ends, bench.held, len(bench.streams)) == (["completed"], [0.0], 0)


def test_repeats_are_dropped_and_one_that_differs_withdraws_the_stream(bench: Bench) -> None:
    bench.take(0, "a")
    bench.take(1, "b")
    assert bench.take(0, "a") == bench.take(1, "b") == []
    assert bench.take(2, "c") == [("c", None)]
    assert bench.take(0, "a") == []
    assert bench.take(1, "B") == [("", "withdrawn")]
    assert bench.take(2, "c") == bench.take(3, "d") == []


def test_several_answers_of_a_request_are_streams_of_their_own(bench: Bench) -> None:
    for index in (0, 1):
        assert bench.take(0, "a", index=index) == [("a", None)]
    assert [work.whose.index for work in bench.works] == [0, 1]
    assert bench.take(1, "b", index=1, last="stop") == [("b", "completed")]
    assert bench.take(1, "c") == [("c", None)]


@pytest.mark.parametrize("state", ["cancelled", "expired", "failed"])
def test_a_stream_whose_request_ended_is_closed_wherever_it_stands(
    bench: Bench, state: Literal["cancelled", "expired", "failed"]
) -> None:
    def close(index: int = 0) -> list[tuple[str, StreamState | None]]:
        piece = TokensGenerated(
            request_id="r", index=index, sequence=CLOSING_SEQUENCE, text="", finish_reason="cancelled", ended=state
        )
        return said(bench.streams.take(piece, place=PLACE, offset=200, key=b"c", headers=HEADERS))

    assert close() == [], "where nothing was told, nothing ends"
    for sequence in range(3):
        bench.take(sequence, "a")
    bench.take(0, "b", index=1)
    assert close() == [("", state)]
    assert (bench.ends, len(bench.streams), close()) == ([state], 1, [])
    assert bench.take(3, "late") == []
    assert close(index=1) == [("", state)]


def test_a_gap_withdraws_the_stream(bench: Bench) -> None:
    bench.take(0, "a")
    assert bench.take(2, "c") == [("", "withdrawn")]


def test_the_rest_of_a_stream_whose_beginning_is_gone_is_left_alone(bench: Bench) -> None:
    assert bench.take(4, "e") == []
    assert len(bench.streams) == 0


@pytest.mark.parametrize(("request_id", "opening"), [("r", None), ("closed", OPENING)])
def test_a_stream_that_cannot_be_begun_says_so_once(
    bench: Bench, request_id: str, opening: StreamOpening | None
) -> None:
    assert bench.take(0, "a", request_id=request_id, opening=opening) == [("", "failed")]
    assert bench.take(1, "b", request_id=request_id) == []
    assert bench.ends == ["failed"]


def test_a_piece_that_cannot_be_done_now_is_taken_again_or_ends_its_stream(bench: Bench) -> None:
    bench.take(0, "a")
    bench.works[0].failing = BackendUnavailable("not now")
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            bench.take(1, "b")
    bench.works[0].failing = None
    assert bench.take(1, "b") == [("b", None)]
    piece = TokensGenerated(request_id="r", sequence=2, text="c")
    assert said(bench.streams.give_up(piece, PLACE)) == [("", "failed")]
    assert bench.take(2, "c") == []


def test_a_bug_ends_the_stream_and_no_other(bench: Bench) -> None:
    bench.take(0, "a")
    bench.take(0, "x", request_id="other")
    bench.works[0].failing = ValueError("of a text")
    assert bench.take(1, "b") == [("", "failed")]
    assert bench.take(1, "y", request_id="other") == [("y", None)]


def test_a_stream_that_is_not_heard_of_expires(bench: Bench) -> None:
    bench.take(0, "a")
    bench.now = 30
    bench.take(0, "x", request_id="other")
    bench.now = 60
    assert said(bench.streams.expire()) == [("", "expired")]
    assert bench.take(1, "b") == []
    assert bench.take(1, "y", request_id="other") == [("y", None)]


def test_beyond_the_most_the_one_longest_unheard_of_expires() -> None:
    bench = Bench(most=2)
    for number, name in enumerate(("first", "second", "third")):
        bench.now = number
        told = bench.take(0, "a", request_id=name)
    assert told == [("a", None), ("", "expired")]
    assert bench.take(1, "b", request_id="first") == []
    assert bench.take(1, "b", request_id="third") == [("b", None)]


def test_a_partition_is_read_again_from_where_its_oldest_open_stream_began(bench: Bench) -> None:
    assert bench.streams.oldest(PLACE) is None
    bench.take(0, "a")
    bench.take(0, "x", request_id="other")
    assert bench.streams.oldest(PLACE) == 101
    assert bench.streams.oldest(("llm.tokens", 1)) is None
    bench.take(1, "b", last="stop")
    assert bench.streams.oldest(PLACE) == 102
    bench.streams.drop([PLACE])
    assert bench.streams.oldest(PLACE) is None


def token(text: str, beside: int = 0) -> TokenLikelihood:
    others = tuple(Likelihood(token="x", logprob=-2.0) for _ in range(beside))
    return TokenLikelihood(token=text, logprob=-1.0, top_logprobs=others)


def test_likelihoods_are_held_until_all_of_their_text_is_told() -> None:
    held = HeldLikelihoods()
    held.put((token("a"), token("b")), 2)
    held.put(None, 3)
    held.put((token("d"),), 4)
    assert held.take(1) is None
    assert held.take(3) == (token("a"), token("b"))
    assert (held.take(4), held.take(4)) == ((token("d"),), None)


def test_of_more_likelihoods_than_a_piece_may_have_the_stream_has_none_from_there_on() -> None:
    held = HeldLikelihoods()
    held.put((token("a", MOST_LIKELIHOODS - 1),), 1)
    assert held.take(1) is not None
    held.put((token("b", MOST_LIKELIHOODS - 1),), 2)
    held.put((token("c"),), 3)
    assert held.take(3) is None
    held.put((token("d"),), 4)
    assert held.take(4) is None
