"""Streams through the policy: text is told once its sentence was screened, and never what is blocked or redacted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.errors import BackendUnavailable
from penstock.contracts.events import (
    FinishReason,
    GenerationParameters,
    SealedVault,
    StreamOpening,
    TokenLikelihood,
    TokensGenerated,
    Verdict,
)
from penstock.contracts.streams import TokensScreened
from penstock.runtime.streams import MOST_CHARACTERS, StreamOf
from penstock_safety.app import build_streams
from penstock_safety.detector import Finding
from penstock_safety.policy import parse
from penstock_safety.screen import Screener
from penstock_safety.settings import Settings
from penstock_safety.stage import SafetyStage, redact
from penstock_safety.streaming import MOST_HELD, ScreenedStream
from penstock_safety.windows import WindowSettings

POLICY = parse("""
version: "1"
detectors: [words]
rules:
  prompt: {mask: [], evil: []}
  response:
    mask: [{at_least: 0.5, action: redact}]
    evil: [{at_least: 0.5, action: block}]
tenants:
  lenient: {rules: {response: {evil: []}}}
""")
VAULT = SealedVault(key_id="k", wrapped_key="a", wrap_nonce="b", nonce="c", ciphertext="d")
OPENING = StreamOpening(parameters=GenerationParameters(model="m", max_tokens=5), vault=VAULT)


class Words:
    """Finds what is from `mask` to `end`, or to where the text ends so far, and `evil`; fails on `boom`."""

    name = "words"
    digest = "sha256:words"
    labels = frozenset({"mask", "evil"})

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        if any("boom" in window for window in windows):
            raise RuntimeError
        return [
            [
                Finding(label, 0.9, match.start(), match.end(), self.name)
                for label, form in (("mask", r"(?s:mask.*?(?:end|\Z))"), ("evil", "evil"))
                for match in re.finditer(form, window)
            ]
            for window in windows
        ]


SCREENER = Screener([Words()], WindowSettings(1_000, 200), 10.0)
STAGE = SafetyStage(POLICY, {"words": Words()}, SCREENER)


def judge(text: str, tenant: str) -> list[Verdict]:
    (findings,) = SCREENER.screen([text])
    return STAGE.judge(findings, "response", tenant=tenant)


def stream(*, tenant: str = "default", hold: int = 40) -> ScreenedStream:
    return ScreenedStream(judge, StreamOf("r", "c", tenant, 2), OPENING, hold=hold, overlap=200)


def run(
    pieces: Sequence[str], *, end: FinishReason = "stop", work: ScreenedStream | None = None
) -> list[TokensScreened]:
    """All that is told of an answer in these pieces."""
    work = work or stream()
    told: list[TokensScreened] = []
    for number, text in enumerate(pieces):
        last = number == len(pieces) - 1
        piece = TokensGenerated(
            request_id="r",
            sequence=number,
            text=text,
            finish_reason=end if last else None,
            logprobs=(TokenLikelihood(token=text, logprob=-1.0),) if text else None,
        )
        told += work.push(piece)
        if work.ended:
            break
    assert [(one.index, one.sequence) for one in told] == [(2, number) for number in range(len(told))]
    assert [one.opening for one in told] == [OPENING, *[None] * (len(told) - 1)]
    assert [one.state is not None for one in told] == [False] * (len(told) - 1) + [True]
    return told


def text_of(told: Sequence[TokensScreened]) -> str:
    return "".join(one.text for one in told)


def tokens_of(told: Sequence[TokensScreened]) -> str:
    """The text of all tokens whose likelihoods were told."""
    return "".join(each.token for one in told for each in one.logprobs or ())


def letters(text: str) -> list[str]:
    return list(text)


def test_a_sentence_is_told_when_it_is_complete_and_not_before() -> None:
    told = run(["One is", " here.", " ", "Two is", " too. ", "Three"])
    assert [one.text for one in told] == ["One is here. ", "Two is too. ", "Three"]
    assert (told[-1].state, told[-1].finish_reason) == ("completed", "stop")


def test_a_long_sentence_goes_on_word_by_word_with_half_of_the_hold_kept_back() -> None:
    told = run([f"word{number} " for number in range(30)])
    assert len(told) > 3
    so_far = 0
    for one in told[:-1]:
        so_far += len(one.text)
        assert one.text.endswith(" ")
    assert text_of(told) == "".join(f"word{number} " for number in range(30))
    assert so_far < len(text_of(told)) - 10


def test_blocked_text_ends_the_stream_before_the_sentence_that_it_stands_in() -> None:
    told = run([*letters("All is well. This is evil. More."), ""])
    assert text_of(told) == "All is well. "
    assert told[-1].state == "blocked"
    assert text_of(run([*letters("All is well. This is evil. More."), ""], work=stream(tenant="lenient"))).endswith(
        "More."
    )


def test_what_is_redacted_is_told_as_redacted_also_where_it_spans_sentences() -> None:
    told = run(letters("It is so. Now mask this. And that end is told. Well."))
    assert text_of(told) == "It is so. Now [REDACTED:mask] is told. Well."
    assert told[-1].state == "completed"
    assert not any("this" in one.text for one in told)


def test_what_was_told_and_turns_out_to_be_redacted_withdraws_the_stream() -> None:
    def late(text: str, tenant: str) -> list[Verdict]:
        found = judge(text, tenant)
        if "later" in text:
            (finding,) = STAGE.judge([Finding("mask", 0.9, 0, 5, "words")], "response", tenant=tenant)
            found.append(finding)
        return found

    work = ScreenedStream(late, StreamOf("r", "c", "t", 2), OPENING, hold=40, overlap=200)
    told = run(["It is so. ", "It came later. ", "End."], work=work)
    assert (text_of(told), told[-1].state) == ("It is so. ", "withdrawn")


def test_likelihoods_go_with_the_text_of_their_tokens() -> None:
    told = run(["One is", " here. T", "wo is too. ", "Three"])
    assert [one.text for one in told] == ["One is here. ", "Two is too. ", "Three"]
    # the second token is told with the end of its text, not with its beginning
    assert [tokens_of([one]) for one in told] == ["One is", " here. Two is too. ", "Three"]


def test_from_a_redaction_on_there_are_no_likelihoods() -> None:
    told = run(letters("It is so. Now mask this. And that end is told. Well."))
    assert (tokens_of(told), told[-1].state) == ("It is so. Now ", "completed")
    assert run(letters("A mask end"))[-1].logprobs is None


@pytest.mark.parametrize("text", ["All is well. This is evil. More.", "All is well. evil"])
def test_tokens_of_blocked_text_are_not_told(text: str) -> None:
    told = run([*letters(text), ""])
    assert (tokens_of(told), told[-1].state) == ("All is well. ", "blocked")


def test_where_the_screen_cannot_run_nothing_is_told_and_nothing_is_changed() -> None:
    work = stream()
    (first,) = work.push(TokensGenerated(request_id="r", sequence=0, text="Well. "))
    with pytest.raises(BackendUnavailable):
        work.push(TokensGenerated(request_id="r", sequence=1, text="boom. "))
    (second,) = work.push(TokensGenerated(request_id="r", sequence=1, text="Fine. "))
    (last,) = work.end("failed")
    assert [first.text, second.text, last.text, last.state] == ["Well. ", "Fine. ", "", "failed"]


def test_a_generation_that_was_cancelled_ends_the_stream_without_what_is_held() -> None:
    told = run(["Well. ", "And so", " on"], end="cancelled")
    assert (text_of(told), told[-1].state) == ("Well. ", "cancelled")


@pytest.mark.parametrize("text", ["x" * (MOST_HELD + 1), "x " * (MOST_CHARACTERS // 2 + 1)])
def test_what_would_take_too_much_memory_is_withdrawn(text: str) -> None:
    work = stream()
    told = [*work.push(TokensGenerated(request_id="r", sequence=0, text=text))]
    assert told[-1].state == "withdrawn"


TEXTS = st.lists(
    st.sampled_from(["well", "mask", "end", "evil", ". ", " ", "\n", ".", "!", "<PERSON_1>", "é"]), max_size=30
)


@given(words=TEXTS, size=st.integers(1, 7), hold=st.integers(4, 60))
def test_a_completed_stream_tells_what_the_stage_lets_pass_and_no_stream_tells_more(
    words: list[str], size: int, hold: int
) -> None:
    text = "".join(words)
    pieces = [text[at : at + size] for at in range(0, len(text), size)] or [""]
    told = run(pieces, work=stream(hold=hold))
    verdicts = judge(text, "default")
    assert text_of(told) == text_of(run(pieces, work=stream(hold=hold)))
    so_far = ""
    for number, one in enumerate(told, 1):
        so_far += tokens_of([one])
        assert text_of(told[:number]).startswith(so_far), "a token was told before its text"
    assert "evil" not in text_of(told)
    assert "mask" not in text_of(told).replace("[REDACTED:mask]", "")
    if any(verdict.action == "block" for verdict in verdicts):
        assert told[-1].state == "blocked"
    else:
        assert told[-1].state in ("completed", "withdrawn")
        if told[-1].state == "completed":
            assert text_of(told) == redact(text, verdicts)
            if text_of(told) == text:
                assert tokens_of(told) == text
        else:
            assert "mask" in text


def test_the_composition_root_screens_with_the_shipped_policy() -> None:
    relaying = build_streams(Settings())
    work = relaying.begin(StreamOf("r", "c", "t"), OPENING)
    told = [
        *work.push(TokensGenerated(request_id="r", sequence=0, text="Hello. The key is AKIAIOSFODNN7QWERTYU or")),
        *work.push(TokensGenerated(request_id="r", sequence=1, text=" not.", finish_reason="stop")),
    ]
    assert [getattr(one, "text", None) for one in told] == ["Hello. ", "The key is [REDACTED:secret] or not."]
