"""What an answer under way has to tell: likelihoods with the text that their tokens end in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.generation import local

from penstock.contracts.events import GenerationParameters, PromptPart
from penstock_inference.backend import GenerationRequest, Piece


def pieces_of(**parameters: Any) -> list[Piece]:
    backend = local(rows=3)
    given = GenerationParameters(**{"model": "tiny", "max_tokens": 40, "logprobs": 1, **parameters})
    backend.add(GenerationRequest(key=0, prompt=(PromptPart(kind="text", text="the model"),), parameters=given, seed=7))
    pieces: list[Piece] = []
    while step := backend.step():
        pieces += step
    return pieces


def plain(text: str) -> str:
    """Without characters that several tokens spell together, and without control tokens, which no text has."""
    return re.sub(r"<\|\w+\|>", "", "".join(filter(str.isascii, text)))


@pytest.mark.parametrize("more", [{}, {"n": 3, "temperature": 1.0}, {"stop": ("e",)}])
def test_likelihoods_come_with_the_text_that_their_tokens_end_in(more: dict[str, Any]) -> None:
    pieces = pieces_of(**more)
    last = pieces[-1]
    beside = [piece.beside for piece in pieces if piece.beside is not None]
    streams = [[(piece.text, piece.likelihoods) for piece in pieces[:-1]]]
    for number in range(1, more.get("n", 1)):
        streams.append([(each.text, each.likelihoods) for each in beside if each.number == number])
    for came, whole in zip(streams, [last.logprobs, *(other.logprobs for other in last.others)], strict=True):
        assert whole is not None
        told, shown = "", ""
        for text, likelihoods in came:
            told, shown = told + text, shown + "".join(each.token for each in likelihoods)
            assert plain(told).startswith(plain(shown)), "a token is told before its text"
        early = tuple(each for _, likelihoods in came for each in likelihoods)
        assert early == whole[: len(early)]
        assert len(early) >= len(whole) - 3, "they came at the end alone"


def test_a_token_whose_end_is_held_back_is_told_with_its_end() -> None:
    token = next(each.token for piece in pieces_of() for each in piece.likelihoods if len(plain(each.token)) > 1)
    # a stop string that never comes, and with whose beginning the token ends
    told, shown, held = "", "", 0
    for piece in pieces_of(stop=(f"{token[-1]}\x00",))[:-1]:
        told, shown = told + piece.text, shown + "".join(each.token for each in piece.likelihoods)
        assert plain(told).startswith(plain(shown)), "a token is told before its text"
        held += plain(told) != plain(shown)
    assert held, "nothing was held back"
