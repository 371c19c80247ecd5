"""How long anonymizing a 500-character text takes, beside Presidio as it comes, in one run.

    python tests/benchmarks/bench_anonymize.py [--rounds 200] [--names deploy/models/penstock-heads]

Three texts: full of personal data, with a little, with none. Rows: Presidio's analyzer with its default
recognizers, without an NLP model (`no_op`); our detector; our whole stage, with vault and state; with `--names` the
stage with a folder of heads. The two do not look for the same things: ours has no dates and UUIDs, and has national
numbers of six languages. Each round ends its texts with its number, since the model of names knows a text again. The
rounds of the rows are interleaved, so that a busy machine slows all of them alike. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import tldextract
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpEngineProvider
from rich.console import Console
from rich.table import Table

from penstock.contracts.events import (
    Findings,
    GenerationParameters,
    Language,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    Source,
)
from penstock.runtime.stage import Inbound, Record
from penstock.vault import VaultKeys, new_key
from penstock_anonymize.detector import Detector
from penstock_anonymize.names import ModelNames
from penstock_anonymize.stage import AnonymizeStage, Limits

CHARACTERS = 500
PLAIN = (
    "Please summarise the letter below in two sentences and keep the tone polite. The author thanks the team for "
    "its patience, explains why the delivery was late, and proposes to meet again when everybody is back. "
)
DENSE = (
    "Write to ada.lovelace@example.org or call +44 20 7946 0958. Card 4111 1111 1111 1111, IBAN GB82 WEST 1234 5698 "
    "7654 32, SSN 536-22-8145, server 192.168.10.24, page https://www.example.com/a/b?c=d, (212) 555-0199. "
)
TEXTS = {
    "dense": (DENSE + "Thank you for the help with this. ") * 3,
    "sparse": PLAIN + "You can write to ada.lovelace@example.org. " + PLAIN * 2,
    "none": PLAIN * 3,
}


class Nowhere:
    """State that forgets."""

    def get(self, key: str) -> str | None:
        """Nothing."""
        return None

    def put(self, key: str, value: str) -> None:
        """Nothing."""


def plain_presidio() -> Callable[[str], object]:
    """Presidio's analyzer with its default recognizers and no NLP model."""
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())  # no call out to the network
    provider = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "no_op", "models": [{"lang_code": "en", "model_name": "none"}]}
    )
    engine = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=["en"])
    return lambda text: engine.analyze(text, "en")


def whole_stage(detector: Detector) -> Callable[[str], object]:
    """Our stage on an event whose one text part is the text."""
    stage = AnonymizeStage(
        detector=detector,
        keys=VaultKeys.parse(new_key("k1")),
        vaults=Nowhere(),
        limits=Limits(part_characters=100_000, entities=1_000),
        release="0",
    )
    record = Record(topic="llm.preprocessed", partition=0, offset=0, timestamp_ms=0, key=None, value=None)
    source = Source(topic="llm.requests", partition=0, offset=0)

    def run(text: str) -> object:
        event = RequestPreprocessed(
            context=RequestContext(request_id="r", conversation_id="c", submitted_ms=0, source=source),
            findings=Findings(language=Language(code="en", confidence=1)),
            prompt=(PromptPart(kind="text", text=text, role="user", message=0),),
            parameters=GenerationParameters(model="m", max_tokens=1),
        )
        (outcome,) = stage.process([Inbound(record=record, now_ms=0, event=event)])
        if not isinstance(outcome, RequestAnonymized):
            raise RuntimeError(f"the stage did not accept the text: {type(outcome).__name__}")
        return outcome

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--names", type=Path, help="folder of heads")
    given = parser.parse_args()
    rounds: int = given.rounds
    detector = Detector()
    rows: dict[str, Callable[[str], object]] = {
        "presidio defaults": plain_presidio(),
        "detector": lambda text: detector.detect(text, "en"),
        "stage": whole_stage(detector),
    }
    if given.names:
        rows["stage with names"] = whole_stage(Detector(names=ModelNames(given.names)))
    texts = {name: text[: CHARACTERS - 7] for name, text in TEXTS.items()}
    samples: dict[tuple[str, str], list[float]] = {(row, name): [] for row in rows for name in texts}
    for number in range(rounds):
        for name, text in texts.items():
            for row, call in rows.items():
                own = f"{text} {number:06}"
                begun = time.process_time_ns()
                call(own)
                samples[row, name].append((time.process_time_ns() - begun) / 1_000)
    table = Table("µs of CPU per text, median", *texts, title=f"{CHARACTERS} characters, {rounds} rounds")
    medians = {key: round(statistics.median(values), 1) for key, values in samples.items()}
    for row in rows:
        table.add_row(row, *(f"{medians[row, name]:,.0f}" for name in texts))
    Console().print(table)
    found = {name: len(detector.detect(text, "en")) for name, text in texts.items()}
    print(
        json.dumps(
            {
                "characters": CHARACTERS,
                "rounds": rounds,
                "presidio": version("presidio-analyzer"),
                "found": found,
                "median_us": {row: {name: medians[row, name] for name in texts} for row in rows},
            }
        )
    )


if __name__ == "__main__":
    main()
