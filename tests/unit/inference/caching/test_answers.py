"""The bounds of what is kept: bytes, number, age."""

from __future__ import annotations

from tests.support.generation import Clock

from penstock.contracts.events import Alternative, Likelihood, TokenLikelihood
from penstock_inference.caching.answers import ENTRY_BYTES, LIKELIHOOD_BYTES, Answer, Answers, Bounds

BOUNDS = Bounds(bytes=1 << 20, entries=3, age_s=60)


def answer(text: str = "x") -> Answer:
    return Answer(text, "stop", 1, 5)


def test_what_was_put_comes_back() -> None:
    kept = Answers(BOUNDS)
    assert kept.get(b"a") is None
    assert kept.put(b"a", answer())
    assert kept.get(b"a") == answer()
    kept.put(b"a", answer("y"))
    assert kept.get(b"a") == answer("y")
    assert len(kept) == 1
    assert kept.bytes == answer("y").bytes


def test_the_least_recently_used_goes_first() -> None:
    gone: list[bytes] = []
    kept = Answers(BOUNDS, forgotten=gone.append)
    for key in (b"a", b"b", b"c"):
        kept.put(key, answer())
    kept.get(b"a")
    kept.put(b"d", answer())
    assert gone == [b"b"]
    assert [key for key in (b"a", b"b", b"c", b"d") if kept.get(key)] == [b"a", b"c", b"d"]


def test_bytes_are_bounded() -> None:
    size = answer("x" * 100).bytes
    kept = Answers(Bounds(bytes=2 * size, entries=100, age_s=60))
    for key in (b"a", b"b", b"c"):
        kept.put(key, answer("x" * 100))
    assert (len(kept), kept.bytes) == (2, 2 * size)
    assert not kept.put(b"d", answer("x" * 2 * size))
    assert not kept.put(b"e", answer(), extra_bytes=2 * size)
    assert (len(kept), kept.bytes) == (2, 2 * size)


def test_an_answer_goes_at_its_age_however_often_it_is_used() -> None:
    clock = Clock()
    kept = Answers(BOUNDS, monotonic=clock)
    kept.put(b"a", answer())
    clock.now += 30
    kept.put(b"b", answer())
    assert kept.get(b"a")
    clock.now += 30
    assert kept.get(b"a") is None
    assert kept.get(b"b")
    clock.now += 30
    kept.put(b"c", answer())
    assert (len(kept), kept.bytes) == (1, answer().bytes)


def test_an_answer_that_is_put_again_lives_anew() -> None:
    clock = Clock()
    kept = Answers(BOUNDS, monotonic=clock)
    kept.put(b"a", answer())
    clock.now += 30
    kept.put(b"a", answer("y"))
    clock.now += 31
    assert kept.get(b"a") == answer("y")


def test_size_counts_further_answers_and_likelihoods() -> None:
    token = TokenLikelihood(token="a", logprob=-1.0, top_logprobs=(Likelihood(token="b", logprob=-2.0),))
    other = Alternative(text="abc", finish_reason="stop", logprobs=(token,))
    whole = Answer("ab", "stop", 4, 5, logprobs=(token, token), others=(other,))
    assert whole.bytes == ENTRY_BYTES + 4 * 5 + 6 * LIKELIHOOD_BYTES
