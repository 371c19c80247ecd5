"""`penstock_anonymize.stage`: nothing personal is left, everything comes back, and failure never passes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from tests.support.anonymizing import make, opened, request, run, texts_of
from tests.support.memory import MemoryState

from penstock.contracts.errors import LimitExceeded, PenstockError, StageError
from penstock.contracts.events import (
    PromptPart,
)
from penstock.text.placeholders import restore
from penstock.vault import VaultKeys, new_key
from penstock_anonymize.detector import Detector
from penstock_anonymize.scanners import Span
from penstock_anonymize.stage import AnonymizeStage


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture(scope="module")
def keys() -> VaultKeys:
    return VaultKeys.parse(new_key("k1"))


@pytest.fixture
def vaults() -> MemoryState:
    return MemoryState()


@pytest.fixture
def stage(detector: Detector, keys: VaultKeys, vaults: MemoryState) -> AnonymizeStage:
    return make(detector, keys, vaults)


def test_personal_data_becomes_placeholders_and_is_counted(stage: AnonymizeStage, keys: VaultKeys) -> None:
    event = run(
        stage, request("Write to ada@example.org or bob@example.org, not ADA@example.org.", "Call +44 20 7946 0958")
    )
    assert texts_of(event) == [
        "Write to <EMAIL_ADDRESS_1> or <EMAIL_ADDRESS_2>, not <EMAIL_ADDRESS_1>.",
        "Call <PHONE_NUMBER_1>",
    ]
    assert event.findings.redactions == {"EMAIL_ADDRESS": 3, "PHONE_NUMBER": 1}
    assert event.findings.input_tokens == 5
    assert opened(keys, event).entities == {
        "<EMAIL_ADDRESS_1>": "ada@example.org",
        "<EMAIL_ADDRESS_2>": "bob@example.org",
        "<PHONE_NUMBER_1>": "+44 20 7946 0958",
    }


def test_the_template_is_left_alone(stage: AnonymizeStage) -> None:
    event = run(stage, request("ada@example.org"))
    assert event.prompt[0] == PromptPart(kind="template", text="<|user|>\n")


def test_all_that_came_from_outside_is_searched(stage: AnonymizeStage, keys: VaultKeys) -> None:
    schema = json.dumps(
        {
            "properties": {
                "ada@example.org": {"const": 4111111111111111, "minimum": 12, "pattern": "a\\d\n"},
                "x": {"enum": ["call +44 20 7946 0958", "é"]},
            }
        },
        ensure_ascii=False,
    )
    event = run(
        stage,
        request(
            "Hi", stop=("bob@example.org", "\n"), schema=schema, user="u@example.org", metadata={"ssn": "536-22-8145"}
        ),
    )
    assert event.parameters.stop == ("<EMAIL_ADDRESS_1>", "\n")
    assert event.parameters.output.json_schema is not None
    assert json.loads(event.parameters.output.json_schema) == {
        "properties": {
            "<EMAIL_ADDRESS_2>": {"const": "<CREDIT_CARD_1>", "minimum": 12, "pattern": "a\\d\n"},
            "x": {"enum": ["call <PHONE_NUMBER_1>", "é"]},
        }
    }
    clear = event.encode().decode()
    for secret in ("example.org", "536-22", "41111", "7946"):
        assert secret not in clear
    contents = opened(keys, event)
    assert (contents.user, contents.metadata) == ("u@example.org", {"ssn": "536-22-8145"})
    assert "ada@example.org" in contents.entities.values()


def test_a_schema_without_personal_data_is_carried_unchanged(stage: AnonymizeStage) -> None:
    schema = '{"b": [1, -2.5e3, true, null, "a\\"b"],\n "a": {}}'
    assert run(stage, request("Hi", schema=schema)).parameters.output.json_schema == schema


def test_placeholders_are_stable_within_a_conversation(
    stage: AnonymizeStage, keys: VaultKeys, vaults: MemoryState
) -> None:
    run(stage, request("ada@example.org and bob@example.org"))
    event = run(stage, request("now bob@example.org and cy@example.org"))
    assert texts_of(event) == ["now <EMAIL_ADDRESS_2> and <EMAIL_ADDRESS_3>"]
    assert set(opened(keys, event).entities) == {"<EMAIL_ADDRESS_2>", "<EMAIL_ADDRESS_3>"}
    (state,) = vaults.table.items()
    assert state[0] == "acme/c-1"
    assert "example.org" not in state[1]


def test_other_conversations_and_tenants_share_nothing(stage: AnonymizeStage, keys: VaultKeys) -> None:
    run(stage, request("ada@example.org"))
    for other in ({"conversation": "c-2"}, {"tenant": "rival"}):
        event = run(stage, request("bob@example.org", **other))
        assert texts_of(event) == ["<EMAIL_ADDRESS_1>"]
        assert opened(keys, event).entities == {"<EMAIL_ADDRESS_1>": "bob@example.org"}


def test_a_typed_placeholder_brings_out_nothing(stage: AnonymizeStage, keys: VaultKeys) -> None:
    run(stage, request("ada@example.org"))
    for conversation in ("c-1", "c-2"):
        event = run(stage, request("repeat <EMAIL_ADDRESS_1> to me", conversation=conversation))
        assert texts_of(event) == ["repeat <LITERAL_1> to me"]
        assert event.findings.redactions == {}
        answer, _ = restore("<LITERAL_1> <EMAIL_ADDRESS_1>", opened(keys, event).entities)
        assert answer == "<EMAIL_ADDRESS_1> <EMAIL_ADDRESS_1>"


def test_a_literal_and_a_real_one_side_by_side_both_come_back(stage: AnonymizeStage, keys: VaultKeys) -> None:
    text = "<EMAIL_ADDRESS_1> ada@example.org <LITERAL_1><EMAIL_ADDRESS_bob@example.org>"
    event = run(stage, request(text))
    assert restore(texts_of(event)[0], opened(keys, event).entities)[0] == text


def test_a_text_found_once_is_replaced_everywhere(stage: AnonymizeStage) -> None:
    event = run(stage, request("The pin 5550100 is stored.", "Please call 5550100 now"))
    assert texts_of(event) == ["The pin <PHONE_NUMBER_1> is stored.", "Please call <PHONE_NUMBER_1> now"]
    assert event.findings.redactions == {"PHONE_NUMBER": 2}


def test_a_single_request_needs_no_state(stage: AnonymizeStage, keys: VaultKeys, vaults: MemoryState) -> None:
    event = run(stage, request("ada@example.org", conversation="r-1", request_id="r-1"))
    assert opened(keys, event).entities
    assert vaults.table == {}


def test_without_anything_to_keep_there_is_no_vault(stage: AnonymizeStage, vaults: MemoryState) -> None:
    event = run(stage, request("Hello there"))
    assert event.vault is None
    assert texts_of(event) == ["Hello there"]
    assert vaults.table == {}


def test_the_output_is_a_function_of_event_state_and_random_bytes(detector: Detector, keys: VaultKeys) -> None:
    one, two = (run(make(detector, keys, MemoryState()), request("ada@example.org")) for _ in range(2))
    assert one.encode() == two.encode()


def test_versions_name_the_recognizers(stage: AnonymizeStage) -> None:
    assert stage.versions["anonymize"] == "0.1.0"
    assert "presidio-analyzer/" in stage.versions["recognizers"]


@pytest.mark.parametrize("error", [ValueError("ada@example.org"), MemoryError(), KeyError("ada@example.org")])
def test_whatever_fails_the_request_fails_and_nothing_is_quoted(
    keys: VaultKeys, vaults: MemoryState, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    detector = Detector()

    def broken(*_: object) -> list[Span]:
        raise error

    monkeypatch.setattr(detector, "detect", broken)
    (outcome,) = make(detector, keys, vaults).process([request("ada@example.org")])
    assert isinstance(outcome, StageError)
    assert outcome.code == "anonymize_failed"
    assert "ada" not in str(outcome)
    assert outcome.__cause__ is None
    assert vaults.table == {}


def test_a_changed_state_fails_the_request(stage: AnonymizeStage, detector: Detector, vaults: MemoryState) -> None:
    run(stage, request("ada@example.org"))
    other = make(detector, VaultKeys.parse(new_key("k1")), vaults)
    for value in (vaults.table["acme/c-1"], "no vault"):
        vaults.table["acme/c-1"] = value
        (outcome,) = other.process([request("bob@example.org")])
        assert isinstance(outcome, PenstockError)
        assert outcome.code == "vault_unreadable"


def test_limits_are_typed_errors(detector: Detector, keys: VaultKeys, vaults: MemoryState) -> None:
    (outcome,) = make(detector, keys, vaults, part_characters=10).process([request("a" * 11)])
    assert isinstance(outcome, LimitExceeded)
    assert outcome.limit == 10
    (outcome,) = make(detector, keys, vaults, entities=1).process([request("a@example.org b@example.org")])
    assert isinstance(outcome, LimitExceeded)
    assert outcome.code == "too_many_entities"
    assert vaults.table == {}


CANARIES: list[Callable[[random.Random], str]] = [
    lambda r: f"canary{r.randrange(10**6)}@{r.choice(['example.org', 'corp.internal', 'mail.example.co.uk'])}",
    lambda r: f"+{r.randrange(10, 99)} {r.randrange(100, 999)} {r.randrange(1000000, 9999999)}",
    lambda r: f"({r.randrange(200, 999)}) {r.randrange(200, 999)}-{r.randrange(1000, 9999)}",
    lambda r: luhn(f"4{r.randrange(10**14):014}", r.choice(["", " ", "-"])),
    lambda r: iban("DE", f"{r.randrange(10**18):018}", r.choice(["", " "])),
    lambda r: f"{r.randrange(1, 255)}.{r.randrange(255)}.{r.randrange(255)}.{r.randrange(1, 255)}",
    lambda r: f"https://example.com/u/{r.randrange(10**9)}?t={r.randrange(10**9)}",
    lambda r: f"{r.randrange(100, 600)}-{r.randrange(10, 99)}-{r.randrange(1000, 9999)}",
]
WORDS = [
    *("please", "summarise", "this", "letter", "für", "Frau", "and", "<b>tell</b>", "me", "12", "things,", "é", "ß"),
    *("<EMAIL_ADDRESS_1>", ":", ";", "(", ")", "\n"),
]


def luhn(digits: str, separator: str) -> str:
    total = sum(
        (2 * int(c) - 9 * (int(c) > 4)) if place % 2 == 0 else int(c) for place, c in enumerate(reversed(digits))
    )
    number = digits + str(-total % 10)
    return separator.join(number[i : i + 4] for i in range(0, 16, 4))


def iban(country: str, account: str, separator: str) -> str:
    digits = "".join(str(int(c, 36)) for c in account + country + "00")
    number = f"{country}{98 - int(digits) % 97:02}{account}"
    return separator.join(number[i : i + 4] for i in range(0, len(number), 4))


@pytest.mark.parametrize("seed", range(12))
def test_no_canary_is_left_and_everything_comes_back(detector: Detector, keys: VaultKeys, seed: int) -> None:
    source = random.Random(seed)
    stage = make(detector, keys, MemoryState())
    for turn in range(25):
        canaries = [source.choice(CANARIES)(source) for _ in range(source.randint(1, 6))]
        texts = []
        for _ in range(source.randint(1, 3)):
            pieces = source.choices(WORDS, k=source.randint(0, 30)) + source.choices(canaries, k=4)
            source.shuffle(pieces)
            texts.append(source.choice([" ", "  ", ", ", "\n"]).join(pieces))
        texts.append(" ; ".join(canaries))
        language = source.choice(["en", "de", "fr", "es", "it", "pt", "und", "ja"])
        event = run(stage, request(*texts, language=language, request_id=f"r-{turn}", conversation=f"c-{turn % 5}"))
        clear = event.encode().decode()
        for canary in canaries:
            assert canary not in clear
        entities = opened(keys, event).entities
        assert [restore(text, entities)[0] for text in texts_of(event)] == texts
