"""Anonymize: `RequestPreprocessed` to `RequestAnonymized`, with nothing personal left in clear.

Every text that came from outside is searched: prompt parts of all roles, stop strings and the strings and
numbers of a JSON schema. `user` and `metadata` go into the vault unread. The event's vault holds only the
placeholders of this request; the conversation's whole map is kept, sealed, in state. A conversation of one
request (its id is the request's) needs none.

It does not restore (postprocess) and does not judge (safety). Request, conversation and tenant ids are
routing data and stay as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.contracts.errors import LimitExceeded, PenstockError, StageError
from penstock.contracts.events import (
    Findings,
    GenerationParameters,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    SealedVault,
)
from penstock.runtime.stage import Inbound, PerRecord, State
from penstock.text.placeholders import LITERAL
from penstock.vault import Random, VaultContents, VaultKeys
from penstock_anonymize.book import PlaceholderBook
from penstock_anonymize.detector import Detector, merge
from penstock_anonymize.replacement import Replacer
from penstock_anonymize.scanners import Span

_JSON_SCALAR: Final = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*')


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may hold."""

    part_characters: int
    entities: int
    """Different pieces of personal data in one conversation."""


class AnonymizeStage(PerRecord):
    """Takes personal data out. Pure but for the state of conversations and the nonces of the vault."""

    name = "anonymize"

    def __init__(
        self,
        *,
        detector: Detector,
        keys: VaultKeys,
        vaults: State,
        limits: Limits,
        release: str,
        random: Random = os.urandom,
    ) -> None:
        self._detector = detector
        self._replacer = Replacer()
        self._keys = keys
        self._vaults = vaults
        self._limits = limits
        self._random = random
        self.versions: Mapping[str, str] = {"anonymize": release, "recognizers": detector.version}

    def process_one(self, inbound: Inbound) -> RequestAnonymized:
        """The anonymized request. Whatever fails, the request fails: it never passes as it is."""
        event = inbound.expect(RequestPreprocessed)
        try:
            return self._anonymize(event)
        except PenstockError:
            raise
        except Exception as error:  # noqa: BLE001  # a library's message may quote the text; its type may not
            raise StageError(f"anonymizing failed ({type(error).__name__})", code="anonymize_failed") from None

    def _anonymize(self, event: RequestPreprocessed) -> RequestAnonymized:
        context = event.context
        stored = self._stored(context)
        book = self._book(stored, context)
        language = event.findings.language.code if event.findings.language else None
        texts = _Texts.of(event)
        self._check(texts.all)
        found = [self._search(text, language, book) for text in texts.all]
        counts = self._assign(texts.all, found, book)
        replaced = [self._replacer.replace(*pair, book) for pair in zip(texts.all, found, strict=True)]
        prompt, parameters = texts.put_back(event, replaced)
        vault = self._seal(event, book, stored)
        self._remember(context, book, vault)
        return RequestAnonymized(
            context=context,
            findings=_counted(event.findings, counts),
            prompt=prompt,
            parameters=parameters,
            vault=vault,
        )

    def _check(self, texts: Sequence[str]) -> None:
        longest = max((len(text) for text in texts), default=0)
        if longest > self._limits.part_characters:
            raise LimitExceeded(
                f"messages: one of {longest} characters, more than {self._limits.part_characters}",
                field="messages",
                limit=self._limits.part_characters,
            )

    def _search(self, text: str, language: str | None, book: PlaceholderBook) -> list[Span]:
        literals = book.literals(text)
        return merge([*self._detector.detect(text, language, literals), *literals])

    def _assign(self, texts: Sequence[str], found: list[list[Span]], book: PlaceholderBook) -> Counter[str]:
        """Number what was found in order of appearance, then find the same texts wherever else they stand."""
        for text, spans in zip(texts, found, strict=True):
            for span in spans:
                book.placeholder(span.entity, text[span.start : span.end])
        counts: Counter[str] = Counter()
        for text, spans in zip(texts, found, strict=True):
            for span in book.known(text, spans):
                book.placeholder(span.entity, text[span.start : span.end])
                spans.append(span)
            spans.sort(key=lambda span: span.start)
            counts.update(span.entity for span in spans if span.entity != LITERAL)
        return counts

    def _stored(self, context: RequestContext) -> SealedVault | None:
        value = self._vaults.get(_state_key(context)) if _lasts(context) else None
        if value is None:
            return None
        try:
            return SealedVault.model_validate_json(value)
        except ValueError:
            raise StageError("the conversation's state is no vault", code="vault_unreadable", field="vault") from None

    def _book(self, stored: SealedVault | None, context: RequestContext) -> PlaceholderBook:
        entities: Mapping[str, str] = {}
        if stored is not None:
            contents = self._keys.open(stored, tenant=context.tenant, conversation=context.conversation_id)
            entities = contents.entities
        return PlaceholderBook(entities, self._detector.types, self._limits.entities)

    def _seal(
        self, event: RequestPreprocessed, book: PlaceholderBook, stored: SealedVault | None
    ) -> SealedVault | None:
        contents = VaultContents(entities=book.used, user=event.user, metadata=event.metadata)
        if not contents.entities and contents.user is None and not contents.metadata:
            return None
        return self._keys.seal(
            contents,
            tenant=event.context.tenant,
            conversation=event.context.conversation_id,
            previous=stored,
            random=self._random,
        )

    def _remember(self, context: RequestContext, book: PlaceholderBook, vault: SealedVault | None) -> None:
        if not book.grown or not _lasts(context):
            return
        sealed = self._keys.seal(
            VaultContents(entities=book.entities),
            tenant=context.tenant,
            conversation=context.conversation_id,
            previous=vault,
            random=self._random,
        )
        self._vaults.put(_state_key(context), sealed.model_dump_json())


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a request in one list: prompt parts, stop strings, then the scalars of the JSON schema."""

    all: list[str]
    parts: list[int]
    """Which prompt parts they are."""
    scalars: list[str]
    """The schema's strings and numbers as JSON, in order."""

    @classmethod
    def of(cls, event: RequestPreprocessed) -> _Texts:
        parts = [index for index, part in enumerate(event.prompt) if part.kind == "text"]
        schema = event.parameters.output.json_schema
        scalars = _JSON_SCALAR.findall(schema) if schema else []
        texts = [event.prompt[index].text for index in parts]
        texts += event.parameters.stop
        texts += [json.loads(scalar) if scalar[0] == '"' else scalar for scalar in scalars]
        return cls(texts, parts, scalars)

    def put_back(
        self, event: RequestPreprocessed, replaced: Sequence[str]
    ) -> tuple[tuple[PromptPart, ...], GenerationParameters]:
        """The event's prompt and parameters with `replaced` in place of the texts."""
        prompt = list(event.prompt)
        for index, text in zip(self.parts, replaced, strict=False):
            prompt[index] = prompt[index].model_copy(update={"text": text})
        first, last = len(self.parts), len(replaced) - len(self.scalars)
        output = event.parameters.output
        if output.json_schema and replaced[last:] != self.all[last:]:
            rewritten = iter(
                old if new == text else json.dumps(new, ensure_ascii=False)
                for old, text, new in zip(self.scalars, self.all[last:], replaced[last:], strict=True)
            )
            schema = _JSON_SCALAR.sub(lambda _: next(rewritten), output.json_schema)
            output = output.model_copy(update={"json_schema": schema})
        update = {"stop": tuple(replaced[first:last]), "output": output}
        return tuple(prompt), event.parameters.model_copy(update=update)


def _counted(findings: Findings, counts: Counter[str]) -> Findings:
    return findings.model_copy(update={"redactions": dict(sorted((Counter(findings.redactions) + counts).items()))})


def _lasts(context: RequestContext) -> bool:
    return context.conversation_id != context.request_id


def _state_key(context: RequestContext) -> str:
    return f"{context.tenant}/{context.conversation_id}"
