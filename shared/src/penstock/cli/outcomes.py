"""What became of a stage's records: the next event or the terminal result of each, reduced to what is compared.

A record is known by the topic it was read from and its request id. Which of its stage's input topics an outcome
belongs to follows from the stages that the request had been through.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import ValidationError

from penstock.cli.errors import CommandError
from penstock.cli.reading import Progress, Read, read_spans, scan
from penstock.cli.render import verdicts
from penstock.cli.replay_run import PASSED, outputs_of
from penstock.cli.replays import Manifest
from penstock.cli.target import Bounds, Target, bounds
from penstock.cli.window import inputs_of, message_in, offsets_at, request_id_in
from penstock.contracts.events import (
    CompletionGenerated,
    CompletionScreened,
    Event,
    RequestAnonymized,
    RequestPreprocessed,
    RequestScreened,
    StageTiming,
    Verdict,
)
from penstock.contracts.headers import REQUEST_ID
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.topics import MESSAGES, load_topics
from penstock.runtime.claims import Claims


class Key(NamedTuple):
    """One record of the window."""

    topic: str
    """The declared name of the input topic, for both lanes that of the first."""
    request_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record."""

    status: str
    """`passed` for an event, else the result's."""
    code: str | None
    labels: tuple[str, ...]
    """`direction label action` of every verdict, sorted."""
    said: tuple[str, ...]
    """The verdicts for people, with their scores."""
    digest: str | None
    """Of the text, None where there is none."""
    tokens: int | None
    """Prompt and answer together, or the prompt alone before there is an answer."""
    text: str | None = None
    """Only where it was asked for."""

    def differs(self, other: Outcome) -> tuple[str, ...]:
        """In what it is not as the other; text and tokens are compared where both have the same status."""
        found = []
        if self.status != other.status:
            found.append("status")
        if self.code != other.code:
            found.append("error")
        if self.labels != other.labels:
            found.append("verdicts")
        if self.status == other.status:
            if self.digest != other.digest:
                found.append("text")
            if self.tokens != other.tokens:
                found.append("tokens")
        return tuple(found)


@dataclass(slots=True)
class Outcomes:
    """The outcomes found on one side, and the versions that made them."""

    of: dict[Key, Outcome] = field(default_factory=dict)
    versions: dict[str, set[str]] = field(default_factory=dict)


def keys_of(own: Target, manifest: Manifest) -> dict[Key, int]:
    """The records that were copied -> how often; more than once where a request was redriven."""
    found: dict[Key, int] = {}
    for name in manifest.inputs:
        for record in scan(own, name):
            key = Key(first_of(manifest.stage, name), request_id_in(name, record, own.topic(name)))
            found[key] = found.get(key, 0) + 1
    return found


def collect(
    target: Target,
    manifest: Manifest,
    wanted: Container[Key],
    ids: Container[str],
    *,
    from_ms: int = 0,
    text: bool = False,
    progress: Progress | None = None,
) -> Outcomes:
    """The outcomes of the wanted records, from what was written since `from_ms`.

    `ids` are the wanted request ids: records of others are passed over unparsed. Where a record has several
    outcomes, an event counts before a result, and the first before others.
    """
    found = Outcomes()
    events: set[Key] = set()
    for name in outputs_of(manifest.stage):
        if message_in(name) == DeadLetter.schema_name:
            continue  # beside each letter of an accepted request stands its result
        for record in _since(target, name, from_ms, progress):
            stated = record.header(REQUEST_ID)
            if stated is None or stated.decode("utf-8", "replace") not in ids:
                continue
            message = _message(name, record, target.claims)
            if (key := _key(message, manifest.stage)) is None or key not in wanted:
                continue
            is_event = isinstance(message, Event)
            if key not in found.of or (is_event and key not in events):
                found.of[key] = outcome_of(message, text=text)
            if is_event:
                events.add(key)
            versions = message.context.versions if isinstance(message, Event) else message.versions
            for part, version in versions.items():
                found.versions.setdefault(part, set()).add(version)
    return found


def outcome_of(message: Event | RequestFinished, *, text: bool = False) -> Outcome:
    """The message reduced to what is compared."""
    if isinstance(message, RequestFinished):
        status, code, found = str(message.status), message.error.code if message.error else None, message.verdicts
        usage = message.usage
        tokens = None if usage is None else usage.total_tokens
    else:
        status, code, found = PASSED, None, message.findings.verdicts
        if isinstance(message, CompletionGenerated | CompletionScreened):
            tokens = message.completion.usage.total_tokens
        else:
            tokens = message.findings.input_tokens
    said = _text(message)
    return Outcome(
        status=status,
        code=code,
        labels=_labels(found),
        said=tuple(verdicts(found)),
        digest=None if said is None else hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest(),
        tokens=tokens,
        text=said if text else None,
    )


def _labels(found: Iterable[Verdict]) -> tuple[str, ...]:
    return tuple(sorted(f"{one.direction} {one.label} {one.action}" for one in found))


def _text(message: Event | RequestFinished) -> str | None:
    """The text that the stage passed on; None where it passed none on."""
    match message:
        case RequestFinished():
            return message.choices[0].message.content if message.choices else None
        case CompletionGenerated() | CompletionScreened():
            return message.completion.text
        case RequestPreprocessed() | RequestAnonymized() | RequestScreened():
            # parts, not their sum: moving text between them changes the prompt
            return json.dumps([part.text for part in message.prompt], ensure_ascii=False)
    return None


def _key(message: Event | RequestFinished, stage: str) -> Key | None:
    """The record that the message is the outcome of; None where another stage made it."""
    if isinstance(message, RequestFinished):
        request_id, timings = message.id, message.timings
    else:
        request_id, timings = message.context.request_id, message.context.timings
    if not timings or timings[-1].stage != stage:
        return None
    return Key(read_from(stage, timings[:-1]), request_id)


def first_of(stage: str, name: str) -> str:
    """Of the stage's input topics the first that carries what `name` carries."""
    return next(one for one in inputs_of(stage) if message_in(one) == message_in(name))


def read_from(stage: str, before: tuple[StageTiming, ...]) -> str:
    """The input topic of the stage that a request comes by which has been through these stages."""
    inputs = inputs_of(stage)
    writers = {
        writer: topic.name
        for topic in load_topics()
        if topic.name in inputs
        for writer in topic.written_by
        if writer not in topic.read_by
    }
    found = next((writers[one.stage] for one in reversed(before) if one.stage in writers), inputs[0])
    return first_of(stage, found)


def _message(name: str, record: Read, claims: Claims) -> Event | RequestFinished:
    kind = MESSAGES[message_in(name)]
    try:
        found = kind.model_validate_json(claims.resolve(name, record.value, record.headers) or b"")
    except ValidationError:
        raise CommandError(
            f"{name} {record.partition}:{record.offset} is no {kind.schema_name} of this release; upgrade this "
            "command, or find out what else writes there"
        ) from None
    assert isinstance(found, Event | RequestFinished)
    return found


def _since(target: Target, name: str, from_ms: int, progress: Progress | None) -> Iterable[Read]:
    topic = target.topic(name)
    reader = target.reader()
    try:
        ends = bounds(reader, topic, target.partitions(name))
        starts = offsets_at(reader, topic, ends, from_ms)
        spans = {number: Bounds(starts[number], end.high) for number, end in ends.items()}
        yield from read_spans(reader, topic, spans, progress)
    finally:
        reader.close()
