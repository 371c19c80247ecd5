"""Poison among good requests: `python -m tests.faults.poison`.

Preprocess, the one service that reads what others wrote, gets bad input of every kind between good requests;
a service behind it ends the good ones, so that nothing slower hides what bad input costs. Every bad input has to
end as a typed terminal result with its dead letter, or as the dead letter alone where its id is a duplicate,
every good one as if it were alone. The same good requests without the bad, before and after, are what
throughput is compared with. A control whose preprocess swallows what it refuses shows that the count can fail.
Prints a table; the last line is JSON. Exit status 1 where the goal is missed, or the control is clean.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from confluent_kafka import Message
from tests.faults.badinput import Bad, bad_inputs
from tests.faults.suite import Say, Suite, end
from tests.support.kafka import Follower, Publishing, Sender, Slot, committed_offsets, place_of, results
from tests.support.stack import StackError

from penstock.contracts import topics as names
from penstock.contracts.headers import DEAD_LETTER
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.local.process import ProcessIdentity, log_tail, start_detached, stop
from penstock.local.root import project_root
from penstock.runtime import topics

STUCK_S = 60.0
"""Nothing new for so long: what is missing will not come."""
QUIET_S = 3.0
"""Longer than a stage takes: what loops would show."""
DUPLICATES = 0.02
"""Share of the good requests whose id comes a second time, as one more bad input."""
LEAST_RATIO = 0.5


@dataclass(frozen=True)
class Sent:
    """A published record; `bad` None for a good one."""

    publishing: Publishing
    bad: Bad | None = None


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    bad: int
    bad_typed: int
    good: int
    good_ok: int
    seconds: float
    """From the first record that preprocess took up to the last good request's result."""
    codes: Counter[str]
    wrong: list[str] = field(repr=False)
    """A sentence for each bad input that did not end as it must, and each good one that was harmed."""
    restless: int
    """Records that came after all was done, and input that was not committed."""

    @property
    def clean(self) -> bool:
        """Whether every one ended as it must."""
        return self.bad_typed == self.bad and self.good_ok == self.good and not self.restless

    @property
    def rate(self) -> float:
        """Good requests completed in a second."""
        return self.good_ok / self.seconds


class Services:
    """Preprocess, or the control in its place, and what follows it; a context manager."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, *, swallow: bool) -> None:
        first = ("tests.faults.poisoned", "swallow") if swallow else ("penstock_preprocess",)
        self._commands = {"preprocess": first, "follow": ("tests.faults.poisoned", "follow")}
        base = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "OTEL_"))}
        own = {"PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PENSTOCK_TOPIC_PREFIX": prefix}
        self._environment = {**base, **own}
        self._folder = folder
        self._running: dict[str, ProcessIdentity] = {}

    def __enter__(self) -> Services:
        for name, command in self._commands.items():
            log = self._folder / f"{name}.log"
            whole = [sys.executable, "-m", *command]
            self._running[name] = start_detached(whole, log_file=log, cwd=project_root(), env=self._environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for identity in self._running.values():
            stop(identity, grace_s=20)

    def check(self) -> None:
        """Raises StackError where one has ended by itself."""
        for name, identity in self._running.items():
            if not identity.alive():
                raise StackError(f"{name} ended by itself; its log:\n{log_tail(self._folder / f'{name}.log', 12)}")


def good_requests(count: int, seed: int) -> list[Publishing]:
    """Ordinary requests; some say who they are, some belong to a conversation."""
    chosen = random.Random(seed)
    made = []
    for number in range(count):
        text = f"What is river number {number}? " * chosen.randint(1, 12)
        value = json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 4}).encode()
        headers = [("request-id", f"g{seed}-{number}".encode())] if chosen.random() < 0.5 else []
        made.append(Publishing(value, headers, f"c{number % 400}".encode() if chosen.random() < 0.5 else None))
    return made


def mixed(good: Sequence[Publishing], bad: int, seed: int) -> list[Sent]:
    """All of them in random order; a duplicate comes somewhere behind its first, in the same partition."""
    chosen = random.Random(seed)
    twins = [one for one in good if one.headers and one.key is not None][: int(len(good) * DUPLICATES)][:bad]
    chosen_bad: list[Sent] = [Sent(one.publishing, one) for one in bad_inputs(bad - len(twins), seed)] if bad else []
    order = [*(Sent(one) for one in good), *chosen_bad]
    chosen.shuffle(order)
    again = frozenset({"duplicate_request"})
    where = {id(one.publishing): place for place, one in enumerate(order)}
    late = [(chosen.uniform(where[id(one)], len(order)), Bad("duplicate", one.value, again), one) for one in twins]
    placed = [(float(place), one) for place, one in enumerate(order)]
    placed += [(place, Sent(Publishing(one.value, one.headers, one.key), bad_)) for place, bad_, one in late]
    return [one for _, one in sorted(placed, key=lambda entry: entry[0])]


def run(bootstrap: str, folder: Path, sent: Sequence[Sent], *, swallow: bool = False) -> Report:
    """Publish all, then start the services, wait until they are done and count.

    Of a preprocess that swallows, only the good requests' ends are waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"x{uuid.uuid4().hex[:10]}."
    topics.apply(bootstrap, prefix, replication=1, partitions=4)
    places = Sender(bootstrap, prefix).send([one.publishing for one in sent])
    by_place = dict(zip(places, sent, strict=True))
    awaited = {place for place, one in by_place.items() if not (swallow and one.bad)}
    with Services(bootstrap, prefix, folder, swallow=swallow) as services:
        with Follower(bootstrap, prefix, [names.RESULTS, names.DEAD_LETTERS]) as follower:
            came = _until_done(follower, services, awaited)
            time.sleep(QUIET_S)
            late = follower.to_end()
        ends = committed_offsets(bootstrap, prefix, "preprocess", names.REQUESTS)
    uncommitted = sum(place.offset >= ends[place.partition] for place in places)
    # a failed request's dead letter may come a moment after its result
    return _count(by_place, [*came, *late], restless=uncommitted + sum(not _awaited(m, came) for m in late))


def _until_done(follower: Follower, services: Services, waiting: set[Slot]) -> list[Message]:
    came: list[Message] = []
    last = time.monotonic()
    while waiting and time.monotonic() - last < STUCK_S:
        fresh = follower.poll(0.5)
        if fresh:
            last = time.monotonic()
        came += fresh
        waiting -= {_place(message) for message in fresh}
        services.check()
    return came


def _is_letter(message: Message) -> bool:
    return str(message.topic()).endswith(names.DEAD_LETTERS)


def _place(message: Message) -> Slot:
    if not _is_letter(message):
        return place_of(results([message])[0])
    source = _letter(message).source
    return Slot(source.topic, source.partition, source.offset)


def _letter(message: Message) -> DeadLetter:
    return DeadLetter.model_validate_json(dict(message.headers() or [])[DEAD_LETTER])


def _awaited(message: Message, came: Sequence[Message]) -> bool:
    """Whether the other record of the same request was there already and this one is its first."""
    place = _place(message)
    seen = [other for other in came if _place(other) == place]
    return all(_is_letter(other) is not _is_letter(message) for other in seen)


def _count(by_place: dict[Slot, Sent], messages: Sequence[Message], *, restless: int) -> Report:
    ended: dict[Slot, list[RequestFinished]] = {place: [] for place in by_place}
    letters: dict[Slot, list[tuple[DeadLetter, bytes | None]]] = {place: [] for place in by_place}
    began, done = 2**63, 0
    for message in messages:
        place = _place(message)
        if _is_letter(message):
            letters[place].append((_letter(message), message.value()))
        else:
            (result,) = results([message])
            ended[place].append(result)
            written = message.timestamp()[1]
            # when preprocess took it up: `total_ms` before its end it was submitted, and then it was queued
            began = min(began, written - result.total_ms + result.timings[0].queued_ms)
            if by_place[place].bad is None:
                done = max(done, written)
    wrong, codes = [], Counter[str]()
    totals, right = Counter[bool](), Counter[bool]()
    for place, one in by_place.items():
        good = one.bad is None
        trouble = (
            _harm(ended[place], letters[place]) if one.bad is None else _untyped(one, ended[place], letters[place])
        )
        totals[good] += 1
        right[good] += trouble is None
        if trouble is not None:
            wrong.append(f"{'good' if one.bad is None else one.bad}: {trouble}"[:600])
        codes.update(letter.error.code for letter, _ in letters[place])
        codes.update(result.error.code for result in ended[place] if result.error and result.status == "expired")
    return Report(
        bad=totals[False],
        bad_typed=right[False],
        good=totals[True],
        good_ok=right[True],
        seconds=max(1, done - began) / 1000,
        codes=codes,
        wrong=wrong,
        restless=restless,
    )


def _harm(ended: list[RequestFinished], letters: list[tuple[DeadLetter, bytes | None]]) -> str | None:
    """What befell a good request; None where it is well."""
    if letters or [result.status for result in ended] != ["completed"]:
        return f"ends {[(r.status, r.error and r.error.code) for r in ended]}, {len(letters)} dead letters"
    return None


def _untyped(one: Sent, ended: list[RequestFinished], letters: list[tuple[DeadLetter, bytes | None]]) -> str | None:
    """What is not as it must be with a bad input's end; None where it is."""
    assert one.bad is not None
    codes = one.bad.codes
    duplicate, expired = "duplicate_request" in codes, "deadline_exceeded" in codes
    status = [] if duplicate else ["expired" if expired else "failed"]
    if [result.status for result in ended] != status:
        return f"ends {[result.status for result in ended]} instead of {status}"
    if len(letters) != (0 if expired else 1):
        return f"{len(letters)} dead letters"
    errors = [result.error for result in ended] + [letter.error for letter, _ in letters]
    for error in errors:
        if error is None or error.code not in codes or error.stage != "preprocess" or error.retriable:
            return f"its error is {error and (error.code, error.stage, error.field)}"
    if any(error != errors[0] for error in errors):
        return "result and dead letter do not agree"
    if any(kept != one.publishing.value or letter.attempts != 1 for letter, kept in letters):
        return "the dead letter keeps other bytes, or counts other attempts"
    return None


@dataclass(frozen=True)
class Outcome:
    """The runs of the suite."""

    before: Report
    mixed: Report
    after: Report

    @property
    def throughput_ratio(self) -> float:
        """Good requests a second among bad ones, to those alone: the mean of the time before and after."""
        alone = 2 * self.before.good / (self.before.seconds + self.after.seconds)
        return self.mixed.rate / alone


def compare(bootstrap: str, folder: Path, *, good: int, bad: int, seed: int, say: Say) -> Outcome:
    """The good alone, all together, and the good alone again."""
    requests = good_requests(good, seed)
    say(f"drawing {bad} bad inputs")
    both = mixed(requests, bad, seed)
    alone = [Sent(one) for one in requests]
    reports = []
    for name, sent in (("before", alone), ("mixed", both), ("after", alone)):
        say(f"{name}: {len(sent)} requests")
        report = run(bootstrap, folder / name, sent)
        for sentence in report.wrong[:20]:
            say(sentence)
        reports.append(report)
    return Outcome(*reports)


def summary(outcome: Outcome, control: Report) -> dict[str, object]:
    """The last line."""
    report = outcome.mixed
    return {
        "bad": report.bad,
        "bad_typed": report.bad_typed,
        "good": report.good,
        "good_ok": report.good_ok,
        "throughput_ratio": round(outcome.throughput_ratio, 2),
        "good_per_s": round(report.rate),
        "good_per_s_alone": [round(outcome.before.rate), round(outcome.after.rate)],
        "restless": report.restless,
        "codes": dict(report.codes.most_common()),
        "control_bad": control.bad,
        "control_bad_typed": control.bad_typed,
    }


def main() -> int:
    """Parse the command line, run, print; 1 where the goal is missed or nothing is proven."""
    suite = Suite("poison", __doc__)
    suite.option("good", 10_000)
    suite.option("bad", 10_000)
    suite.option("control", 200, "good and as many bad ones for the control")
    suite.option("seed", 1)
    with suite.running() as running, running.broker() as bootstrap:
        options, say = running.options, running.say
        outcome = compare(bootstrap, running.folder, good=options.good, bad=options.bad, seed=options.seed, say=say)
        say("control: preprocess swallows what it refuses")
        both = mixed(good_requests(options.control, options.seed), options.control, options.seed)
        control = run(bootstrap, running.folder / "control", both, swallow=True)
    unharmed = all(one.clean for one in (outcome.before, outcome.mixed, outcome.after))
    held = unharmed and outcome.throughput_ratio >= LEAST_RATIO and not control.bad_typed
    return end(summary(outcome, control), held=held)


if __name__ == "__main__":
    sys.exit(main())
