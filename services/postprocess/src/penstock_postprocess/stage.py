"""CompletionScreened -> RequestFinished: the answer as the one who asked shall see it.

Order matters: control tokens, cut characters and stop strings go first; then JSON is repaired, or a
half sentence trimmed; then placeholders are restored, so that nothing restored is ever cut; a schema is
checked last, on what is handed out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from penstock.contracts.events import Alternative, Completion, CompletionScreened, GenerationParameters, OutputFormat
from penstock.contracts.results import AnswerMessage, Choice, ChoiceLogprobs, Repair, RequestFinished
from penstock.runtime.stage import Inbound, PerRecord
from penstock.text.placeholders import restore, without_beginning
from penstock.vault import VaultContents, VaultKeys
from penstock_postprocess import clean, structured
from penstock_postprocess.restoring import restore_value
from penstock_postprocess.trim import trim_half_sentence

STAGE = "postprocess"


class PostprocessStage(PerRecord):
    """Implements `penstock.runtime.stage.Stage`."""

    name = STAGE

    def __init__(self, keys: VaultKeys, *, release: str, trim: Literal["sentence", "off"] = "sentence") -> None:
        self._keys = keys
        self._trim = trim
        self.versions: Mapping[str, str] = {STAGE: release}

    def beginning_of(self, text: str, parameters: GenerationParameters, entities: Mapping[str, str]) -> tuple[str, int]:
        """Of an answer that goes on, what its content will begin with as far as that can be told now.

        And how many characters of the text that is, rather too few: white space that follows them is counted.
        """
        text, _ = cleaned(text, parameters.stop)
        if parameters.output.type != "text":
            # restoring may write the whole of it anew
            return ("", 0) if entities else (text.strip(), len(text))
        told = text
        if self._trim == "sentence":
            told, _ = trim_half_sentence(told)
        told = without_beginning(told.rstrip())
        space = len(text) - len(told) - len(text[len(told) :].lstrip())
        return restore(told, entities)[0], len(told) + space

    def process_one(self, inbound: Inbound) -> RequestFinished:
        """The terminal result of one request.

        Raises StageError `vault_unreadable` or `invalid_json_output`, InvalidRequest `invalid_json_schema`.
        """
        event = inbound.expect(CompletionScreened)
        context, findings, completion = event.context, event.findings, event.completion
        vault = VaultContents()
        if event.vault is not None:
            vault = self._keys.open(event.vault, tenant=context.tenant, conversation=context.conversation_id)
        repairs: Counter[str] = Counter()
        choices: list[Choice] = []
        restored = 0
        answers: tuple[Completion | Alternative, ...] = (completion, *(event.others or ()))
        for answer in answers:
            content, places = self.content_of(answer, event.parameters, vault.entities, repairs)
            logprobs = None if answer.logprobs is None else ChoiceLogprobs(content=answer.logprobs)
            choices.append(
                Choice(
                    index=len(choices),
                    message=AnswerMessage(content=content),
                    finish_reason=answer.finish_reason,
                    logprobs=logprobs,
                )
            )
            restored += places
        return RequestFinished(
            id=context.request_id,
            created=inbound.now_ms // 1000,
            model=event.parameters.model,
            choices=tuple(choices),
            usage=completion.usage,
            cached=completion.cached,
            status="completed",
            conversation_id=context.conversation_id,
            tenant=context.tenant,
            priority=context.priority,
            requested_priority=context.requested_priority,
            source=context.source,
            trace_id=inbound.trace_id,
            language=findings.language,
            changes=findings.changes,
            redactions=findings.redactions,
            restored=restored,
            repairs=tuple(Repair(kind=kind, count=count) for kind, count in repairs.items() if count),
            verdicts=findings.verdicts,
            versions=context.versions,
            timings=context.timings,
            total_ms=max(0, inbound.now_ms - context.submitted_ms),
            time_to_first_token_ms=completion.time_to_first_token_ms,
            user=vault.user,
            metadata=vault.metadata,
        )

    def content_of(
        self,
        answer: Completion | Alternative,
        parameters: GenerationParameters,
        entities: Mapping[str, str],
        repairs: Counter[str],
    ) -> tuple[str, int]:
        """The answer's text as it is handed out, and how many places were restored; counts its repairs.

        Raises StageError `invalid_json_output`, InvalidRequest `invalid_json_schema`.
        """
        text, places = cleaned(answer.text, parameters.stop)
        repairs.update(places)
        output = parameters.output
        if output.type == "text":
            if self._trim == "sentence" and answer.finish_reason == "length":
                text, trimmed = trim_half_sentence(text)
                repairs["half_sentence_trimmed"] += trimmed
            return restore(text, entities)
        try:
            content, restored, repair = _structured(text, output, entities)
        except RecursionError:
            raise structured.too_deep() from None
        if repair is not None:
            repairs[repair] += 1
        return content, restored


def cleaned(text: str, stop: tuple[str, ...]) -> tuple[str, dict[str, int]]:
    """The answer without what does not belong to it, and how many places of each kind that were."""
    text, cut_characters = clean.drop_cut_character(text)
    text, stops = clean.cut_at_stop(text, stop)
    text, control_tokens = clean.drop_control_tokens(text)
    return text, {
        "cut_character_dropped": cut_characters,
        "stop_string_trimmed": stops,
        "control_token_dropped": control_tokens,
    }


def _structured(text: str, output: OutputFormat, entities: Mapping[str, str]) -> tuple[str, int, str | None]:
    """JSON text that parses and follows the schema, the places restored, and the repair."""
    value, repair = structured.parse(text, scalars=output.type == "json_schema")
    if output.type == "json_object":
        value = structured.require_object(value)
    value, restored = restore_value(value, entities)
    if output.type == "json_schema":
        # anonymize reads the schema as it reads the prompt, so it may hold placeholders too
        schema, _ = restore_value(structured.load_schema(output.json_schema), entities)
        structured.check(value, schema)
    # an answer that needed nothing keeps its own white space
    content = text.strip() if repair is None and not restored else structured.dump(value)
    return content, restored, repair
