"""Streams restored: what is told is the beginning of the result's content, and at the end all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.errors import StageError
from penstock.contracts.events import FinishReason, GenerationParameters, OutputFormat, StreamOpening, TokenLikelihood
from penstock.contracts.streams import StreamState, TokensRestored, TokensScreened
from penstock.runtime.streams import StreamOf
from penstock.vault import VaultContents, VaultKeys, new_key
from penstock_postprocess.stage import PostprocessStage
from penstock_postprocess.streaming import RestoredStream, refused

KEYS = VaultKeys.parse(new_key("k1"))
WHOSE = StreamOf("r", "c1", "acme", 1)
ENTITIES = {"<PERSON_1>": 'Anna "Ann" Smith', "<EMAIL_ADDRESS_1>": "anna@example.org"}
JSON = OutputFormat(type="json_object")


def stream(
    entities: dict[str, str] | None = None,
    *,
    whose: StreamOf = WHOSE,
    trim: Literal["sentence", "off"] = "sentence",
    **parameters: Any,
) -> RestoredStream:
    contents = VaultContents(entities=ENTITIES if entities is None else entities)
    vault = KEYS.seal(contents, tenant="acme", conversation="c1")
    opening = StreamOpening(parameters=GenerationParameters(model="m", max_tokens=5, **parameters), vault=vault)
    return RestoredStream(PostprocessStage(KEYS, release="1", trim=trim), KEYS, whose, opening)


def run(
    work: RestoredStream,
    pieces: Sequence[str],
    *,
    state: StreamState = "completed",
    reason: FinishReason | None = "stop",
) -> list[TokensRestored]:
    """All that is told of these pieces, the last of which ends the stream."""
    told: list[TokensRestored] = []
    for number, text in enumerate(pieces):
        last = number == len(pieces) - 1
        piece = TokensScreened(
            request_id="r",
            sequence=number,
            text=text,
            state=state if last else None,
            finish_reason=reason if last else None,
            logprobs=(TokenLikelihood(token=text, logprob=-1.0),) if text else None,
        )
        told += work.push(piece)
    assert work.ended
    assert [(one.index, one.sequence) for one in told] == [(1, number) for number in range(len(told))]
    assert [one.final for one in told] == [False] * (len(told) - 1) + [True]
    text = "".join(one.text for one in told)
    assert (told[-1].characters, told[-1].sha256) == (len(text), hashlib.sha256(text.encode()).hexdigest())
    return told


def text_of(told: Sequence[TokensRestored]) -> str:
    return "".join(one.text for one in told)


def tokens_of(told: Sequence[TokensRestored]) -> list[list[str]]:
    """By piece, the tokens whose likelihoods it tells."""
    return [[each.token for each in one.logprobs.content] if one.logprobs else [] for one in told]


def test_likelihoods_go_with_their_text_and_keep_their_placeholders() -> None:
    told = run(stream(), ["I know <PERS", "ON_1>. ", "And <EMAIL_ADDRESS_", "1> too. ", "End."])
    assert [one.text for one in told[:2]] == ["I know ", 'Anna "Ann" Smith.']
    assert tokens_of(told)[:2] == [[], ["I know <PERS", "ON_1>. "]]
    assert [token for piece in tokens_of(told) for token in piece] == [
        "I know <PERS",
        "ON_1>. ",
        "And <EMAIL_ADDRESS_",
        "1> too. ",
        "End.",
    ]
    assert "anna" not in "".join(one.model_dump_json(include={"logprobs"}) for one in told).lower()


def test_a_stream_that_does_not_complete_tells_likelihoods_of_no_more_than_it_told() -> None:
    told = run(stream(), ["One is here. ", "Two is", ""], state="blocked", reason=None)
    assert (text_of(told), tokens_of(told)) == ("One is here.", [["One is here. "], []])


def test_a_placeholder_in_two_pieces_is_restored_whole() -> None:
    told = run(stream(), ["I know <PERS", "ON_1>. And <EMAIL_ADDRESS_", "1> too. ", "End."])
    assert text_of(told) == 'I know Anna "Ann" Smith. And anna@example.org too. End.'
    assert (told[-1].state, told[-1].finish_reason) == ("completed", "stop")
    assert not any("<" in one.text for one in told)


def test_a_half_sentence_that_the_result_will_not_have_is_not_told() -> None:
    told = run(stream(), ["One is here. ", "Two is not qu"], reason="length")
    assert (text_of(told), told[-1].state) == ("One is here.", "completed")
    told = run(stream(trim="off"), ["One is here. ", "Two is not qu"], reason="length")
    assert text_of(told) == "One is here. Two is not qu"


def test_json_is_told_as_it_comes_where_there_is_nothing_to_restore() -> None:
    told = run(stream({}, output=JSON), ['{"a": ', "1, ", '"b": 2}'])
    assert text_of(told) == '{"a": 1, "b": 2}'
    assert len(told) > 1


def test_json_to_restore_is_told_whole_as_the_result_has_it() -> None:
    told = run(stream(output=JSON), ['{"a": ', '"<PERSON_1>"', "}"])
    assert len(told) == 1
    assert json.loads(text_of(told)) == {"a": 'Anna "Ann" Smith'}


def test_json_that_is_none_fails_and_one_that_was_repaired_is_withdrawn() -> None:
    assert run(stream({}, output=JSON), ["no ", "object"])[-1].state == "failed"
    assert run(stream({}, output=JSON), ['{"a": 1, ', '"b": '], reason="length")[-1].state == "withdrawn"


@pytest.mark.parametrize("state", ["blocked", "cancelled", "withdrawn", "failed", "expired"])
def test_how_a_stream_ended_before_is_handed_on(state: StreamState) -> None:
    told = run(stream(), ["One is here. ", ""], state=state, reason=None)
    assert (text_of(told), told[-1].state, told[-1].finish_reason) == ("One is here.", state, None)


def test_anothers_vault_opens_no_stream() -> None:
    with pytest.raises(StageError, match="vault"):
        stream(whose=StreamOf("r", "c2", "acme"))
    assert (refused(WHOSE).state, refused(WHOSE).final, refused(WHOSE).characters) == ("failed", True, 0)


WORDS = st.lists(
    st.sampled_from(
        ["well", "<PERSON_1>", "<EMAIL_ADDRESS_1>", "<PERS", "<|im_end|>", "`", "```\n", ". ", " ", "\n", "3."]
    ),
    max_size=25,
)


@given(words=WORDS, size=st.integers(1, 9), reason=st.sampled_from(["stop", "length"]))
def test_a_completed_stream_is_the_results_content(words: list[str], size: int, reason: FinishReason) -> None:
    text = "".join(words)
    pieces = [text[at : at + size] for at in range(0, len(text), size)] or [""]
    told = run(stream(), pieces, reason=reason)
    whole = run(stream(), [text], reason=reason)
    assert whole[-1].state == "completed"
    assert told[-1].state in ("completed", "withdrawn")
    tokens = [token for piece in tokens_of(told) for token in piece]
    assert tokens == [piece for piece in pieces if piece][: len(tokens)]
    if told[-1].state == "completed":
        assert "".join(tokens) == text
    if told[-1].state == "completed":
        assert text_of(told) == text_of(whole)
    assert text_of(run(stream(), pieces, reason=reason)) == text_of(told)
