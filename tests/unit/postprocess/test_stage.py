"""CompletionScreened -> RequestFinished."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from penstock.contracts.errors import InvalidRequest, PenstockError, StageError
from penstock.contracts.events import (
    Alternative,
    Completion,
    CompletionScreened,
    Findings,
    FinishReason,
    GenerationParameters,
    Language,
    Likelihood,
    NormalizationChange,
    OutputFormat,
    RequestContext,
    SealedVault,
    Source,
    StageTiming,
    TokenLikelihood,
    Usage,
    Verdict,
)
from penstock.contracts.results import Repair, RequestFinished
from penstock.runtime.stage import Inbound, Record
from penstock.vault import VaultContents, VaultKeys, new_key
from penstock_postprocess.stage import PostprocessStage

NOW_MS = 1_700_000_000_500
KEYS = VaultKeys.parse(new_key("k1"))
CONTENTS = VaultContents(
    entities={"<PERSON_1>": 'Anna "Ann" Smith', "<EMAIL_ADDRESS_1>": "anna@example.org"},
    user="user-7",
    metadata={"case": "A 1"},
)
CONTEXT = RequestContext(
    request_id="r1",
    conversation_id="c1",
    tenant="acme",
    priority="bulk",
    submitted_ms=NOW_MS - 1_500,
    source=Source(topic="llm.requests", partition=3, offset=9),
    versions={"preprocess": "1"},
    timings=(StageTiming(stage="preprocess", queued_ms=1, processing_ms=2),),
)
VERDICT = Verdict(
    direction="response", label="abuse", score=0.4, action="flag", detector="d", digest="x", part=0, start=0, end=3
)
FINDINGS = Findings(
    input_tokens=5,
    language=Language(code="en", confidence=0.9),
    changes=(NormalizationChange(kind="nfc", count=2),),
    redactions={"PERSON": 1},
    verdicts=(VERDICT,),
)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}, "required": ["name"]}


def _seal(contents: VaultContents = CONTENTS) -> SealedVault:
    return KEYS.seal(contents, tenant="acme", conversation="c1")


def _process(
    text: str,
    *,
    finish_reason: FinishReason = "stop",
    vault: SealedVault | None = None,
    logprobs: tuple[TokenLikelihood, ...] | None = None,
    others: tuple[Alternative, ...] | None = None,
    trim: Literal["sentence", "off"] = "sentence",
    **parameters: Any,
) -> RequestFinished | PenstockError:
    event = CompletionScreened(
        context=CONTEXT,
        findings=FINDINGS,
        completion=Completion(
            text=text,
            finish_reason=finish_reason,
            usage=Usage(prompt_tokens=5, completion_tokens=7, total_tokens=12),
            time_to_first_token_ms=12.5,
            logprobs=logprobs,
        ),
        others=others,
        parameters=GenerationParameters(**{"model": "penstock-lm", "max_tokens": 7, **parameters}),
        vault=vault,
    )
    record = Record("llm.screened-completions", 3, 4, NOW_MS - 10, b"c1", b"{}")
    stage = PostprocessStage(KEYS, release="1.2.3", trim=trim)
    (outcome,) = stage.process([Inbound(record=record, now_ms=NOW_MS, event=event)])
    assert isinstance(outcome, RequestFinished | PenstockError)
    return outcome


def _content(outcome: RequestFinished | PenstockError) -> str:
    assert isinstance(outcome, RequestFinished), outcome
    return outcome.choices[0].message.content


def _output(kind: Literal["json_object", "json_schema"], schema: dict[str, Any] | None = None) -> OutputFormat:
    return OutputFormat(type=kind, json_schema=None if schema is None else json.dumps(schema))


def test_likelihoods_stand_as_the_api_has_them_placeholders_unrestored() -> None:
    told = TokenLikelihood(token="<PERSON_1>", logprob=-0.5, top_logprobs=(Likelihood(token="a", logprob=-1.5),))
    outcome = _process("<PERSON_1>", vault=_seal(), logprobs=(told,))
    assert isinstance(outcome, RequestFinished)
    (choice,) = json.loads(outcome.encode())["choices"]
    assert choice["message"]["content"] == 'Anna "Ann" Smith'
    assert choice["logprobs"] == {
        "content": [{"token": "<PERSON_1>", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -1.5}]}]
    }


def test_every_answer_is_a_choice_cleaned_and_restored() -> None:
    others = (
        Alternative(text="To <PERSON_1>.<|im_end|>", finish_reason="stop"),
        Alternative(text="One sentence. Half a", finish_reason="length"),
    )
    outcome = _process("Dear <PERSON_1><|im_end|>", vault=_seal(), others=others, n=3)
    assert isinstance(outcome, RequestFinished)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in outcome.choices] == [
        (0, 'Dear Anna "Ann" Smith', "stop"),
        (1, 'To Anna "Ann" Smith.', "stop"),
        (2, "One sentence.", "length"),
    ]
    assert outcome.restored == 2
    assert {repair.kind: repair.count for repair in outcome.repairs} == {
        "control_token_dropped": 2,
        "half_sentence_trimmed": 1,
    }


def test_the_result_has_the_chat_completions_shape_and_carries_everything() -> None:
    outcome = _process("Dear <PERSON_1>, mail <EMAIL_ADDRESS_1> or <PERSON_2>.", vault=_seal())
    assert isinstance(outcome, RequestFinished)
    assert json.loads(outcome.encode()) == {
        "object": "chat.completion",
        "id": "r1",
        "created": NOW_MS // 1000,
        "model": "penstock-lm",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": 'Dear Anna "Ann" Smith, mail anna@example.org or <PERSON_2>.',
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        "status": "completed",
        "conversation_id": "c1",
        "tenant": "acme",
        "priority": "bulk",
        "source": {"topic": "llm.requests", "partition": 3, "offset": 9},
        "language": {"code": "en", "confidence": 0.9},
        "changes": [{"kind": "nfc", "count": 2}],
        "redactions": {"PERSON": 1},
        "restored": 2,
        "repairs": [],
        "verdicts": [json.loads(VERDICT.model_dump_json())],
        "versions": {"preprocess": "1"},
        "timings": [{"stage": "preprocess", "queued_ms": 1.0, "processing_ms": 2.0}],
        "total_ms": 1500.0,
        "time_to_first_token_ms": 12.5,
        "user": "user-7",
        "metadata": {"case": "A 1"},
    }


def test_without_a_vault_nothing_is_restored() -> None:
    outcome = _process("Dear <PERSON_1>.")
    assert isinstance(outcome, RequestFinished)
    assert (_content(outcome), outcome.restored, outcome.user, outcome.metadata) == ("Dear <PERSON_1>.", 0, None, {})


def test_a_vault_of_another_conversation_fails_and_tells_nothing() -> None:
    outcome = _process("Dear <PERSON_1>.", vault=KEYS.seal(CONTENTS, tenant="acme", conversation="other"))
    assert isinstance(outcome, StageError)
    assert outcome.code == "vault_unreadable"
    assert "Anna" not in outcome.message


def test_what_was_changed_is_listed() -> None:
    outcome = _process(
        "One is here.<|im_end|> Two is thr\ufffd", finish_reason="length", stop=("never",), vault=_seal()
    )
    assert isinstance(outcome, RequestFinished)
    assert _content(outcome) == "One is here."
    assert set(outcome.repairs) == {
        Repair(kind="cut_character_dropped"),
        Repair(kind="control_token_dropped"),
        Repair(kind="half_sentence_trimmed"),
    }


def test_stop_strings_are_trimmed_before_names_come_back() -> None:
    contents = VaultContents(entities={"<PERSON_1>": "END of line"})
    outcome = _process("To <PERSON_1> END more", stop=("END",), vault=_seal(contents))
    assert isinstance(outcome, RequestFinished)
    assert _content(outcome) == "To END of line "
    assert outcome.repairs == (Repair(kind="stop_string_trimmed"),)


@pytest.mark.parametrize(
    ("finish_reason", "trim", "expected"),
    [("length", "sentence", "One."), ("stop", "sentence", "One. Two"), ("length", "off", "One. Two")],
)
def test_half_sentences_go_only_where_the_limit_cut_and_the_setting_says_so(
    finish_reason: FinishReason, trim: Literal["sentence", "off"], expected: str
) -> None:
    assert _content(_process("One. Two", finish_reason=finish_reason, trim=trim)) == expected


def test_a_restored_name_is_never_cut() -> None:
    contents = VaultContents(entities={"<PERSON_1>": "J. R. Smith"})
    assert _content(_process("It is <PERSON_1>", finish_reason="length", vault=_seal(contents))) == "It is J. R. Smith"


def test_json_that_needs_nothing_stays_as_it_is() -> None:
    outcome = _process(' {"a":  1}\n', output=_output("json_object"))
    assert isinstance(outcome, RequestFinished)
    assert (_content(outcome), outcome.repairs) == ('{"a":  1}', ())


def test_json_is_repaired_and_names_are_escaped_in_it() -> None:
    outcome = _process(
        '{"to": "<PERSON_1>", "x": [1,', output=_output("json_object"), vault=_seal(), finish_reason="length"
    )
    assert isinstance(outcome, RequestFinished)
    assert json.loads(_content(outcome)) == {"to": 'Anna "Ann" Smith', "x": [1]}
    assert (outcome.restored, outcome.repairs) == (1, (Repair(kind="json_repaired"),))


def test_json_after_a_control_token_and_in_a_fence() -> None:
    outcome = _process('```json\n{"a": 1}\n```<|im_end|>', output=_output("json_object"))
    assert isinstance(outcome, RequestFinished)
    assert _content(outcome) == '{"a":1}'
    assert {repair.kind for repair in outcome.repairs} == {"control_token_dropped", "json_fence_removed"}


@pytest.mark.parametrize(("text", "output"), [("no", _output("json_object")), ("[1,2]", _output("json_object"))])
def test_an_answer_that_is_no_json_fails_with_its_code(text: str, output: OutputFormat) -> None:
    outcome = _process(text, output=output)
    assert isinstance(outcome, StageError)
    assert outcome.code == "invalid_json_output"


def test_a_schema_is_checked_on_what_is_handed_out() -> None:
    schema = _output("json_schema", SCHEMA)
    assert json.loads(_content(_process('{"name": "<PERSON_1>"}', output=schema, vault=_seal()))) == {
        "name": 'Anna "Ann" Smith'
    }
    outcome = _process(
        '{"name": "<PERSON_1>"}', output=schema, vault=_seal(VaultContents(entities={"<PERSON_1>": "A" * 21}))
    )
    assert isinstance(outcome, StageError)
    assert (outcome.code, outcome.limit) == ("invalid_json_output", "maxLength")
    assert "AAA" not in outcome.message


def test_placeholders_in_the_schema_are_restored_too() -> None:
    schema = _output("json_schema", {"properties": {"who": {"enum": ["<PERSON_1>"]}}})
    assert "Ann" in _content(_process('{"who": "<PERSON_1>"}', output=schema, vault=_seal()))


def test_a_schema_that_cannot_be_used_is_the_requests_fault() -> None:
    outcome = _process("{}", output=_output("json_schema", {"type": "nothing"}))
    assert isinstance(outcome, InvalidRequest)
    assert outcome.code == "invalid_json_schema"


def test_json_nested_too_deeply_fails_with_its_code() -> None:
    outcome = _process("[" * 900 + "]" * 900, output=_output("json_schema", {}))
    assert isinstance(outcome, StageError)
    assert outcome.code == "invalid_json_output"


def test_another_event_is_refused() -> None:
    record = Record("llm.screened-completions", 0, 0, NOW_MS, None, b"{}")
    (outcome,) = PostprocessStage(KEYS, release="1").process([Inbound(record=record, now_ms=NOW_MS)])
    assert isinstance(outcome, StageError)
    assert outcome.code == "unexpected_event"


def test_versions_name_the_release() -> None:
    assert PostprocessStage(KEYS, release="1.2.3").versions == {"postprocess": "1.2.3"}
