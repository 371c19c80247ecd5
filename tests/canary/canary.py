"""No personal data where it must not be: `python -m tests.canary.canary`.

Sends requests full of personal data that exists nowhere else through the five services, then searches
every record (key, value, headers) of every topic between anonymize and postprocess, every exported span,
every service's metrics and log for each value in many forms. Values must be back in the results whose
answer quoted their placeholder, and in no other. A search of `llm.requests` must find them all: the
control that shows that the search can find. The last line is JSON; exit status 1 on a leak or a value missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Message
from tests.canary.data import Canaries, CanaryRequest
from tests.canary.search import Search
from tests.support.otlp import OtlpReceiver
from tests.support.stack import SERVICES, Stack

from penstock.contracts import topics
from penstock.contracts.events import CompletionScreened, TokensGenerated
from penstock.contracts.results import RequestFinished
from penstock.local import broker_for_tests
from penstock.text.placeholders import PLACEHOLDER

WITHOUT_PERSONAL_DATA = (
    *topics.siblings(topics.ANONYMIZED),
    *topics.siblings(topics.SCREENED),
    *topics.siblings(topics.COMPLETIONS),
    topics.TOKENS,
    topics.SCREENED_TOKENS,
    *topics.siblings(topics.SCREENED_COMPLETIONS),
    topics.STATE_REQUEST_IDS,
    topics.STATE_VAULTS,
)

Say = Callable[[str], None]


@dataclass
class Report:
    """What was sent, where it was looked for, what was found."""

    requests: int
    canaries: int
    statuses: dict[str, int] = field(default_factory=dict)
    leaks: dict[str, int] = field(default_factory=dict)
    """Kind of place -> places that held a value in the clear."""
    places: dict[str, int] = field(default_factory=dict)
    """Kind of place -> places searched: a key, a value, a header, an export, a log."""
    characters: int = 0
    quoted: int = 0
    """Results whose answer quoted a placeholder of the request's own."""
    restored: int = 0
    """Of those, the ones that hold every such value again."""
    given_back: int = 0
    """Completed results with `user` and `metadata` as they were sent."""
    completed: int = 0
    foreign: int = 0
    """Results that hold another request's value."""
    control_found: int = 0
    """Values that the same search finds in `llm.requests`."""

    @property
    def clean(self) -> bool:
        """No leak, everything restored, and the search proven able to find."""
        return (
            not self.leaks
            and not self.foreign
            and self.quoted == self.restored > 0
            and self.given_back == self.completed
            and self.control_found == self.canaries
        )


def run(stack: Stack, otlp: OtlpReceiver, *, requests: int, seed: int, say: Say = lambda _: None) -> Report:
    """Send, wait for the results, search everywhere."""
    lot = Canaries(seed).requests(requests)
    owners = {canary: request.request_id for request in lot for canary in request.canaries}
    search = Search(owners)
    report = Report(requests, len(owners))
    places = stack.send(request.publishing for request in lot)
    say(f"{requests} requests with {len(owners)} values sent")
    stack.wait_results(places, seconds=120 + requests)
    time.sleep(2.5)  # spans leave each process once a second
    say("searching")
    for kind, text in _places(stack, otlp):
        report.places[kind] = report.places.get(kind, 0) + 1
        report.characters += len(text)
        if search.find(text):
            report.leaks[kind] = report.leaks.get(kind, 0) + 1
    control: set[str] = set()
    for message in stack.read(*topics.siblings(topics.REQUESTS)):
        for _, text in _parts(message):
            control |= search.find(text)
    report.control_found = len(control)
    _check_results(stack, lot, owners, search, report)
    return report


def _places(stack: Stack, otlp: OtlpReceiver) -> Iterator[tuple[str, str | bytes]]:
    for topic in WITHOUT_PERSONAL_DATA:
        for message in stack.read(topic, committed=False):
            for part, text in _parts(message):
                yield f"{topic} {part}", text
    streamed: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for message in stack.read(topics.TOKENS):
        tokens = TokensGenerated.model_validate_json(message.value())
        streamed[tokens.request_id][tokens.sequence] = tokens.text
    for pieces in streamed.values():
        # a value cut into pieces lies in none of the records and in all of them together
        yield f"{topics.TOKENS} joined", "".join(pieces[sequence] for sequence in sorted(pieces))
    for body in otlp.bodies:
        yield "spans", body
    for service in SERVICES:
        yield "metrics", stack.metrics(service)
    for log in stack.logs().values():
        yield "logs", log


def _parts(message: Message) -> Iterator[tuple[str, bytes]]:
    yield "keys", message.key() or b""
    yield "values", message.value() or b""
    for name, value in message.headers() or []:
        yield "headers", name.encode() + b": " + (value or b"")


def _check_results(
    stack: Stack, lot: list[CanaryRequest], owners: dict[str, str], search: Search, report: Report
) -> None:
    sent = {request.request_id: request for request in lot}
    found = {result.id: result for result in stack.results() if result.id in sent}
    report.statuses = dict(Counter(result.status for result in found.values()))
    screened = (
        CompletionScreened.model_validate_json(m.value())
        for m in stack.read(*topics.siblings(topics.SCREENED_COMPLETIONS))
    )
    quotes = {event.context.request_id: quoted_values(stack, event) for event in screened}
    for request_id, result in found.items():
        request = sent[request_id]
        if any(owners[value] != request_id for value in search.find(result.model_dump_json())):
            report.foreign += 1
        if result.status != "completed":
            continue
        report.completed += 1
        report.given_back += result.user == request.user and result.metadata == request.metadata
        values = quotes[request_id]
        if values:
            report.quoted += 1
            report.restored += all(value in answer(result) for value in values)


def quoted_values(stack: Stack, event: CompletionScreened) -> list[str]:
    """What the placeholders in a model's answer stand for, by the vault that travels with it."""
    if event.vault is None:
        return []
    context = event.context
    contents = stack.vault_keys.open(event.vault, tenant=context.tenant, conversation=context.conversation_id)
    named = [match.group() for match in PLACEHOLDER.finditer(event.completion.text)]
    return [contents.entities[name] for name in named if name in contents.entities]


def answer(result: RequestFinished) -> str:
    """The text of a completed result."""
    return result.choices[0].message.content


def main() -> int:
    """Parse the command line, run, print; 1 where something leaked or did not come back."""
    parser = argparse.ArgumentParser(prog="python -m tests.canary.canary", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s {text}", file=sys.stderr)

    with (
        broker_for_tests() as broker,
        OtlpReceiver() as otlp,
        tempfile.TemporaryDirectory(prefix="penstock-canary-") as folder,
        Stack(
            broker.bootstrap_servers,
            f"c{uuid.uuid4().hex[:10]}.",
            Path(folder),
            environment={**otlp.environment, "PENSTOCK_LOG_LEVEL": "debug"},
        ) as stack,
    ):
        report = run(stack, otlp, requests=options.requests, seed=options.seed, say=say)
    for kind, count in report.places.items():
        print(f"{kind:36} {count:8} places, {report.leaks.get(kind, 0)} with a value in the clear")
    print(
        json.dumps(
            {
                "requests": report.requests,
                "canaries": report.canaries,
                "leaks": sum(report.leaks.values()),
                "restored": report.restored,
                "quoted": report.quoted,
                "places_searched": sum(report.places.values()),
                "characters_searched": report.characters,
                "control_found": report.control_found,
                "foreign": report.foreign,
                "given_back": report.given_back,
                "statuses": report.statuses,
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
