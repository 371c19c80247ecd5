"""Sending dead letters again: which ones, why not the others, and the records that go out.

Each record goes out with a marker beside its letter in one transaction. The transactional id is one for an
installation: who starts later fences whoever started before. Choosing comes after that, so that no letter is
chosen on what another operator's run has changed since.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from opentelemetry import trace

from penstock.cli.dead_letters import Letter, Marks, letter_of, no_letter, place_of, source_of
from penstock.cli.errors import CommandError
from penstock.cli.letter_filter import INPUTS, Filter
from penstock.cli.reading import Progress, Read, scan
from penstock.cli.sending import wall_ms
from penstock.cli.target import Target
from penstock.contracts import headers as names_of
from penstock.contracts.claims import CLAIM
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.ingress import request_id_of
from penstock.contracts.lanes import base_of, lane_of
from penstock.contracts.results import DeadLetter, Redriven
from penstock.contracts.topics import DEAD_LETTERS, REQUESTS, in_lane, load_topics
from penstock.runtime import telemetry
from penstock.runtime.claims import has_claim
from penstock.runtime.kafka import Names, enqueue
from penstock.runtime.sampling import extract

DUPLICATE = "duplicate_request"

_NOT_KEPT = (names_of.DEAD_LETTER, names_of.ATTEMPT, names_of.REDRIVE_OF, "traceparent", "tracestate")
_TIMEOUT_S = 60.0
_COMMITS = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for. `which` names letters; else the filter selects."""

    which: tuple[str, ...] = ()
    filter: Filter = field(default_factory=Filter)
    to: str | None = None
    """A stage; else the topic that the record was read from."""
    allowed_ms: int | None = None
    """The new deadline of requests, from now; else they go out without one."""
    again: bool = False
    edited: bytes | None = None
    """The body that goes out in place of the letter's, which is then the only one."""

    def selects(self, letter: Letter) -> bool:
        """Whether the letter is one of those meant."""
        known = letter.metadata
        if self.which:
            return known.request_id in self.which or letter.place in {place_of(one) for one in self.which}
        return self.filter.takes(letter)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a letter is not sent again: in a word or two, to be counted, and in a sentence."""

    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A selected letter, without its bytes."""

    place: str
    metadata: DeadLetter
    topic: str | None
    """The declared name of where it goes."""
    refusal: Refusal | None
    had_deadline: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish, all but its trace headers."""

    topic: str
    """The declared name."""
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Sent:
    """What went out for a letter."""

    place: str
    request_id: str
    to: str
    redrive_of: str
    trace_id: str | None


def destination(record: Read, letter: Letter, wish: Wish, names: Names) -> tuple[str | None, Refusal | None]:
    """The declared topic that the letter goes to, or why it has none."""
    source = letter.metadata.source.topic
    plain = names.plain(source) if source.startswith(names.prefix) else source
    if wish.to is None:
        if plain in INPUTS and names.topic(plain) == source:
            return plain, None
        return None, Refusal(
            "foreign topic", f"it was read from {source}, which no stage of this installation reads; look at --prefix"
        )
    schema = _schema(record, plain)
    inputs = [topic for topic in load_topics() if topic.name in INPUTS and wish.to in topic.read_by]
    for topic in inputs:
        if topic.message == schema:
            return in_lane(topic.name, lane_of(plain)), None
    taken = " and ".join(dict.fromkeys(topic.message for topic in inputs))
    return None, Refusal(
        "schema", f"it is of schema {schema or 'unknown'}, but {wish.to} reads {taken}; leave --to away"
    )


def _schema(record: Read, source: str) -> str | None:
    """The name of the record's schema: from its header, else what its topic carries."""
    stated = record.header(names_of.SCHEMA)
    if stated is not None:
        name = stated.decode("utf-8", "replace").partition("/")[0]
        return name if name in {topic.message for topic in load_topics()} else None
    return next((topic.message for topic in load_topics() if topic.name == source), None)


def weigh(record: Read, letter: Letter, wish: Wish, names: Names, now_ms: int) -> Candidate:
    """Whether the letter can go out, by itself; markers are looked at later."""
    topic, refusal = destination(record, letter, wish, names)
    if letter.metadata.error.code == DUPLICATE:
        refusal = Refusal(
            "duplicate",
            "its request id was accepted before and the first record's result stands: send it under a new id",
        )
    elif topic is not None and base_of(topic) != REQUESTS:
        ended = _event_deadline(record)
        if wish.allowed_ms is not None:
            refusal = Refusal(
                "deadline", f"the deadline of a record of {topic} is in its bytes, which stay: leave --deadline away"
            )
        elif ended is not None and ended <= now_ms:
            refusal = Refusal(
                "expired", f"its deadline, in the bytes, passed {(now_ms - ended) // 1000} s ago: send the request anew"
            )
    had = topic is not None and base_of(topic) == REQUESTS and record.header(names_of.DEADLINE) is not None
    return Candidate(letter.place, letter.metadata, topic, refusal, had)


def select(target: Target, wish: Wish, now_ms: int, *, progress: Progress | None = None) -> list[Candidate]:
    """The letters meant, by time of failure, each with why it is not sent where it is not.

    Raises NotFound where a named one is not there.
    """
    marks = Marks()
    names = Names(target.prefix)
    found = []
    for record in marks.letters(scan(target, DEAD_LETTERS, progress=progress)):
        letter = letter_of(record)
        if wish.selects(letter):
            found.append(_with_object(weigh(record, letter, wish, names, now_ms), letter, target))
    for which in wish.which:
        if not any(one.metadata.request_id == which or one.place == place_of(which) for one in found):
            raise no_letter(target, which)
    found.sort(key=lambda one: (one.metadata.failed_ms, one.place))
    return [_marked(one, marks.of(one.place), wish) for one in found]


def _with_object(candidate: Candidate, letter: Letter, target: Target) -> Candidate:
    """Refused where the record's value was in the claim store and is no longer; raises BackendUnavailable."""
    if letter.claim is None or candidate.refusal is not None or target.claims.holds(letter.claim):
        return candidate
    gone = Refusal("object gone", f"its value {letter.claim.object} is not in the claim store: send the request anew")
    return replace(candidate, refusal=gone)


def _marked(candidate: Candidate, marks: tuple[Redriven, ...], wish: Wish) -> Candidate:
    if not marks or wish.again or candidate.refusal is not None:
        return candidate
    refusal = Refusal("redriven before", f"it was sent again before, to {marks[-1].to}; --again sends it once more")
    return Candidate(candidate.place, candidate.metadata, candidate.topic, refusal, candidate.had_deadline)


def demand(candidates: Iterable[Candidate], wish: Wish) -> list[Candidate]:
    """Of the letters named, those to send; raises CommandError where one that was named cannot be.

    A request id stands for what can be sent of its letters; where that is more than one, a place has to be named.
    """
    candidates = list(candidates)
    chosen: dict[str, Candidate] = {}
    for which in wish.which:
        here = [one for one in candidates if one.place == place_of(which)]
        meant = here or [one for one in candidates if one.metadata.request_id == which]
        good = [one for one in meant if one.refusal is None]
        if not good:
            why = "; ".join(f"{one.place}: {one.refusal.sentence}" for one in meant if one.refusal is not None)
            raise CommandError(f"dead letter {why}. Nothing was sent")
        if len(good) > 1:
            places = ", ".join(one.place for one in good)
            raise CommandError(f"{which} has {len(good)} dead letters: name one by its place: {places}")
        chosen[good[0].place] = good[0]
    return list(chosen.values())


def compose(
    record: Read, letter: Letter, topic: str, wish: Wish, *, names: Names, now_ms: int, body: bytes | None
) -> Outgoing:
    """The original record, one attempt on: key and headers stay, but for those that say how it came here.

    The bytes stay too, unless they were edited. `body` is what they stand for.
    """
    known = letter.metadata
    value = record.value if wish.edited is None else wish.edited
    raw = base_of(topic) == REQUESTS
    dropped = (*_NOT_KEPT, names_of.DEADLINE) if raw else _NOT_KEPT
    if wish.edited is not None:
        dropped = (*dropped, CLAIM)  # the edited body is no claim, whatever the original was
    headers = [(name, value) for name, value in record.headers if name not in dropped]
    before = RequestHeaders.salvage([one for one in record.headers if one[0] == names_of.ATTEMPT]).attempt
    headers += [
        (names_of.ATTEMPT, str(before + 1).encode()),
        (names_of.REDRIVE_OF, known.source.place.encode()),
    ]
    if raw:
        if wish.allowed_ms is not None:
            headers.append((names_of.DEADLINE, str(now_ms + wish.allowed_ms).encode()))
        if _derived_id(record, known, body):
            # at another place another id would be derived, and the request would not be known again
            headers.append((names_of.REQUEST_ID, known.request_id.encode()))
    same = names.topic(topic) == known.source.topic
    return Outgoing(topic, known.source.partition if same else None, record.key, value, headers)


def _derived_id(record: Read, known: DeadLetter, body: bytes | None) -> bool:
    if record.header(names_of.REQUEST_ID) is not None or known.request_id != request_id_of(known.source):
        return False
    return _object(body).get("request_id") is None


def _event_deadline(record: Read) -> int | None:
    if has_claim(record.headers):  # the same is in the header, which spares fetching the event
        return RequestHeaders.salvage(record.headers).deadline_ms
    context = _object(record.value).get("context")
    deadline = context.get("deadline_ms") if isinstance(context, dict) else None
    return deadline if isinstance(deadline, int) else None


def _object(value: bytes | None) -> dict[str, Any]:
    """The JSON object in the bytes; an empty one where they hold none, which is why some letters are letters."""
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class Redrive:
    """One run, alone: made before letters are chosen, it fences whoever redrives already."""

    def __init__(self, target: Target) -> None:
        target.partitions(DEAD_LETTERS)  # no broker and no topic are told in their own words
        self._target = target
        self._names = Names(target.prefix)
        self._producer: Producer = target.transactional("redrive")
        self._failures: list[KafkaError] = []
        self._producer.init_transactions(_TIMEOUT_S)

    def send(self, chosen: list[Candidate], wish: Wish, *, tell: Callable[[int], None] | None = None) -> list[Sent]:
        """Publish the letters and their markers, all or none; raises CommandError."""
        try:
            self._producer.begin_transaction()
            sent = list(self._publish(chosen, wish, tell))
            if len(sent) < len(chosen):
                raise CommandError(
                    f"{len(chosen) - len(sent)} of {len(chosen)} dead letters went with the topic's retention "
                    "meanwhile; nothing was sent: try again"
                )
            self._commit()
        except KafkaException as error:
            raise self._given_up(error.args[0]) from None
        except BaseException:
            self._producer.abort_transaction(_TIMEOUT_S)
            raise
        return sent

    def _publish(self, chosen: list[Candidate], wish: Wish, tell: Callable[[int], None] | None) -> Iterator[Sent]:
        topics = {one.place: one.topic for one in chosen}
        count = 0
        # read once more, not held: a night's letters may be larger than memory
        for record in Marks().letters(scan(self._target, DEAD_LETTERS)):
            topic = topics.get(f"{record.partition}:{record.offset}")
            if topic is None:
                continue
            yield self._one(record, letter_of(record), topic, wish)
            count += 1
            if tell is not None:
                tell(count)
            if count == len(chosen):
                return

    def _one(self, record: Read, letter: Letter, topic: str, wish: Wish) -> Sent:
        now_ms = wall_ms()
        known = letter.metadata
        body = self._renewed(letter) if wish.edited is None else wish.edited
        outgoing = compose(record, letter, topic, wish, names=self._names, now_ms=now_ms, body=body)
        if wish.edited is not None:
            kept = self._target.claims.check_in(topic, wish.edited, now_ms)
            outgoing = replace(outgoing, value=kept.value, headers=[*outgoing.headers, *kept.headers])
        to, of = self._names.topic(topic), known.source.place
        span = telemetry.start_redrive(
            topic, to, of=of, trace_id=known.trace_id, span_id=known.span_id or _sender(record, known.trace_id)
        )
        telemetry.annotate(span, {telemetry.REQUEST_ID: known.request_id, telemetry.TENANT: known.tenant})

        def delivered(error: KafkaError | None, _: Message | None) -> None:
            if error is not None:
                telemetry.failed(span, error.name())
                self._failures.append(error)
            span.end()

        headers = [*outgoing.headers, *telemetry.inject(span)]
        enqueue(
            self._producer,
            to,
            outgoing.value,
            outgoing.key,
            headers=headers,
            on_delivery=delivered,
            partition=outgoing.partition,
        )
        edited = wish.edited is not None
        mark = Redriven(dead_letter=letter.place.replace(":", "/"), to=to, at_ms=now_ms, edited=edited)
        marked = [(names_of.REDRIVEN, mark.model_dump_json().encode())]
        enqueue(
            self._producer,
            self._names.topic(DEAD_LETTERS),
            None,
            record.key,
            headers=marked,
            on_delivery=self._marked,
            partition=record.partition,
        )
        context = span.get_span_context()
        trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else None
        return Sent(letter.place, known.request_id, to, of, trace_id)

    def _renewed(self, letter: Letter) -> bytes | None:
        """The original value; one that is in the claim store is made young again: a new record leads to it."""
        if letter.claim is None:
            return letter.value
        return self._target.claims.renew(source_of(letter, self._target.prefix), letter.claim)

    def _marked(self, error: KafkaError | None, _: Message | None) -> None:
        if error is not None:
            self._failures.append(error)

    def _commit(self) -> None:
        for left in reversed(range(_COMMITS)):
            try:
                self._producer.commit_transaction(_TIMEOUT_S)
            except KafkaException as error:
                if not error.args[0].retriable() or not left:
                    raise
            else:
                return

    def _given_up(self, error: KafkaError) -> CommandError:
        if error.fatal():
            return CommandError(
                f"another redrive was started meanwhile and this one was fenced ({error.name()}): nothing was sent; "
                "look at `penstock dlq list`, then try again"
            )
        if error.retriable():
            return CommandError(
                f"the broker did not say whether the transaction was committed ({error.name()}): it was all or "
                "nothing, and `penstock dlq list` shows which"
            )
        self._producer.abort_transaction(_TIMEOUT_S)
        cause = self._failures[0] if self._failures else error
        return CommandError(f"the broker refused the records ({cause.name()}: {cause.str()}); nothing was sent")


def _sender(record: Read, trace_id: str | None) -> str | None:
    """The span that first sent the record, where it is of that trace: letters of older releases name no span."""
    context = trace.get_current_span(extract(record.headers)).get_span_context()
    same = context.is_valid and trace.format_trace_id(context.trace_id) == trace_id
    return trace.format_span_id(context.span_id) if same else None
