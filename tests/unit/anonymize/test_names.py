"""Names by a model: beside the recognizers, never across a placeholder, and nothing passes where the model fails."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.anonymizing import make, opened, request, run, texts_of
from tests.support.heads import FAKE_HEADS, changed
from tests.support.memory import MemoryState

from penstock.contracts.errors import BackendUnavailable, ConfigurationError
from penstock.contracts.events import RequestAnonymized
from penstock.runtime.settings import BadSettings, parse
from penstock.text.placeholders import PLACEHOLDER, restore
from penstock.vault import VaultKeys, new_key
from penstock_anonymize.app import build
from penstock_anonymize.detector import Detector
from penstock_anonymize.names import ModelNames, apart
from penstock_anonymize.scanners import Span
from penstock_anonymize.settings import Settings
from penstock_anonymize.stage import AnonymizeStage

KEYS = VaultKeys.parse(new_key("k1"))


class Words:
    """Implements `Names`: whole words of a list, whatever their case."""

    types = ("PERSON", "LOCATION")
    version = "words"

    def __init__(self, **words: str) -> None:
        self._words = words
        self.asked: list[str] = []

    def find(self, text: str) -> Sequence[Span]:
        self.asked.append(text)
        if "boom" in text:
            raise BackendUnavailable("the model of names failed", code="names_failed")
        return [
            Span(match.start(), match.end(), self._words[match.group().lower()], 0.9)
            for match in re.finditer(r"\w+", text)
            if match.group().lower() in self._words
        ]


@pytest.fixture(scope="module")
def names() -> ModelNames:
    return ModelNames(FAKE_HEADS)


@pytest.fixture(scope="module")
def detector(names: ModelNames) -> Detector:
    return Detector(names=names)


@pytest.fixture
def stage(names: ModelNames) -> AnonymizeStage:
    return make(Detector(names=names), KEYS, MemoryState())


def test_names_become_placeholders_beside_what_has_a_form(stage: AnonymizeStage) -> None:
    event = run(stage, request("Anna Keller (ada@example.org) is in Rome.", "Tell Anna Keller: 4111 1111 1111 1111"))
    assert texts_of(event) == [
        "<PERSON_1> (<EMAIL_ADDRESS_1>) is in <LOCATION_1>.",
        "Tell <PERSON_1>: <CREDIT_CARD_1>",
    ]
    assert event.findings.redactions == {"CREDIT_CARD": 1, "EMAIL_ADDRESS": 1, "LOCATION": 1, "PERSON": 2}
    assert opened(KEYS, event).entities["<PERSON_1>"] == "Anna Keller"


def test_a_name_within_what_has_a_form_is_hidden_with_it(stage: AnonymizeStage) -> None:
    event = run(stage, request("See https://example.com/anna and anna@example.org"))
    assert texts_of(event) == ["See <URL_1> and <EMAIL_ADDRESS_1>"]


def test_a_name_that_reaches_beyond_a_form_is_hidden_with_it() -> None:
    class Wide(Words):
        def find(self, text: str) -> Sequence[Span]:
            return [Span(0, text.index("."), "PERSON", 0.9)]

    event = run(make(Detector(names=Wide()), KEYS, MemoryState()), request("Ada ada@example.org. Bye"))
    assert texts_of(event) == ["<EMAIL_ADDRESS_1>. Bye"], "the surer one names the type"


def test_what_looks_like_a_placeholder_is_never_cut(stage: AnonymizeStage) -> None:
    class Greedy(Words):
        def find(self, text: str) -> Sequence[Span]:
            return [Span(0, len(text) - 4, "PERSON", 0.99)]

    text = "Anna <PERSON_1> Keller <EMAIL_ADDRESS_7>"
    for detector in (Detector(names=Greedy()), Detector(names=ModelNames(FAKE_HEADS))):
        event = run(make(detector, KEYS, MemoryState()), request(text))
        (said,) = texts_of(event)
        assert said == "<PERSON_1> <LITERAL_1> <PERSON_2> <LITERAL_2>"
        entities = opened(KEYS, event).entities
        assert entities["<LITERAL_1>"] == "<PERSON_1>"
        assert restore(said, entities)[0] == text


def test_pieces_apart_from_what_is_taken() -> None:
    text = "Anna <X_1> Keller , Rome"
    span, taken = Span(0, 24, "PERSON", 0.5), [Span(5, 10, "LITERAL", 0.0), Span(18, 19, "LITERAL", 0.0)]
    assert [text[one.start : one.end] for one in apart([span], taken, text)] == ["Anna", "Keller", "Rome"]
    assert apart([Span(6, 9, "PERSON", 0.5)], taken, text) == []
    assert apart([Span(4, 11, "PERSON", 0.5)], taken, text) == []
    assert apart([span], [], text) == [span]


def test_json_and_tool_calls_keep_their_form(stage: AnonymizeStage) -> None:
    call = json.dumps({"name": "send", "arguments": {"to": "Anna Keller", "city": ["Rome", "Rome"], "age": 3}})
    schema = json.dumps({"enum": ["Anna", "river"], "minimum": 12, "title": "Rome"})
    event = run(stage, request(call, schema=schema, stop=("Keller",)))
    (said,) = texts_of(event)
    assert json.loads(said)["arguments"] == {"to": "<PERSON_1>", "city": ["<LOCATION_1>", "<LOCATION_1>"], "age": 3}
    assert event.parameters.stop == ("<PERSON_2>",)
    assert json.loads(event.parameters.output.json_schema or "") == {
        "enum": ["<PERSON_3>", "river"],
        "minimum": 12,
        "title": "<LOCATION_1>",
    }


def test_a_short_name_hides_no_word_elsewhere_and_a_long_one_its_own_form_alone() -> None:
    class First(Words):
        def find(self, text: str) -> Sequence[Span]:
            return super().find(text) if text.startswith("From") else ()

    names = First(mark="PERSON", summer="PERSON")
    event = run(
        make(Detector(names=names), KEYS, MemoryState()),
        request("From Mark Summer", "Mark this, mark that, Summer; summer, Summers"),
    )
    assert texts_of(event) == ["From <PERSON_1> <PERSON_2>", "Mark this, mark that, <PERSON_2>; summer, Summers"]


def test_a_conversation_keeps_the_types_of_its_names_without_the_model(names: ModelNames) -> None:
    vaults = MemoryState()
    run(make(Detector(names=names), KEYS, vaults), request("Anna Keller is here"))
    event = run(make(Detector(), KEYS, vaults), request("Anna Keller <PERSON_1> <LOCATION_1>", request_id="r-2"))
    assert texts_of(event) == ["<PERSON_1> <LITERAL_1> <LOCATION_1>"]


def test_long_texts_are_searched_to_their_end(stage: AnonymizeStage) -> None:
    text = "😀 the river is in the garden. " * 300 + "Anna Keller"
    event = run(stage, request(text))
    assert texts_of(event) == [text.replace("Anna Keller", "<PERSON_1>")]


@pytest.mark.timeout(60)
def test_very_many_names_and_placeholders_take_linear_time() -> None:
    stage = make(Detector(names=Words(anna="PERSON", keller="PERSON")), KEYS, MemoryState(), part_characters=10**6)
    event = run(stage, request("Anna <PERSON_1> Keller, " * 30_000))
    (said,) = texts_of(event)
    assert said == "<PERSON_1> <LITERAL_1> <PERSON_2>, " * 30_000


def test_where_the_model_fails_a_request_waits_and_the_others_go_on() -> None:
    vaults = MemoryState()
    stage = make(Detector(names=Words(anna="PERSON")), KEYS, vaults)
    outcomes = stage.process([request("Anna", request_id="a"), request("boom"), request("Anna", request_id="b")])
    first, failed, last = outcomes
    assert isinstance(first, RequestAnonymized) and isinstance(last, RequestAnonymized)
    assert isinstance(failed, BackendUnavailable)
    assert (failed.code, failed.retriable) == ("names_failed", True)


def test_a_model_that_raises_quotes_nothing_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ModelNames(FAKE_HEADS)

    def broken(texts: Sequence[str], *_: object) -> Any:
        raise RuntimeError(f"cannot run {texts[0]}")

    with monkeypatch.context() as broken_model:
        broken_model.setattr(names._heads, "pii", broken)
        (outcome,) = make(Detector(names=names), KEYS, MemoryState()).process([request("Anna Keller")])
    assert isinstance(outcome, BackendUnavailable)
    assert "Anna" not in str(outcome) and outcome.__cause__ is None
    assert names.find("Anna Keller") == (Span(0, 11, "PERSON", pytest.approx(0.99, abs=0.02)),)


def test_numbers_alone_are_left_to_the_recognizers(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ModelNames(FAKE_HEADS)
    asked: list[str] = []
    monkeypatch.setattr(names._heads, "pii", lambda texts, *_: asked.extend(texts) or [[]])
    for text in ("12", "-1.5e3", " \n", "—", "", "12.03.1980", "river", "river"):
        names.find(text)
    assert asked == ["12.03.1980", "river"], "and a text that comes again is known"


PIECES = [
    *("Anna", "Keller", "Rome", "<PERSON_1>", "<LOCATION_2>", "<LITERAL_1>", "a@b.example.org"),
    *("\ud83d", "😀", "é", "\u202e"),
]


@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=12), max_size=40),
    separator=st.sampled_from(["", " ", "\n"]),
)
def test_every_text_comes_back(detector: Detector, pieces: list[str], separator: str) -> None:
    text = separator.join(pieces)
    found = detector.detect(text)
    assert all(0 <= span.start < span.end <= len(text) for span in found)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        return  # no event can hold one
    event = run(make(detector, KEYS, MemoryState()), request(text))
    (said,) = texts_of(event)
    entities = opened(KEYS, event).entities if event.vault else {}
    assert restore(said, entities)[0] == text
    left = PLACEHOLDER.sub(" ", said)
    assert separator == "" or not re.search(r"(?<![^\W_])(?:Anna|Keller|Rome)(?![^\W_])", left)


def test_the_version_changes_with_the_folder_and_the_settings(tmp_path: Path, names: ModelNames) -> None:
    other = changed(tmp_path / "other", lambda said: said["pii"]["thresholds"].update(PERSON=0.6))
    versions = {
        Detector().version,
        Detector(names=names).version,
        Detector(names=ModelNames(other)).version,
        Detector(names=ModelNames(FAKE_HEADS, threshold=0.5)).version,
        Detector(names=ModelNames(FAKE_HEADS, entities=["PERSON"])).version,
    }
    assert len(versions) == 5
    assert make(Detector(names=names), KEYS, MemoryState()).versions["recognizers"] == Detector(names=names).version


class NoState:
    """Resources that hand out no state."""

    def state(self, topic: str) -> MemoryState:
        return MemoryState()


def built(monkeypatch: pytest.MonkeyPatch, **variables: str) -> AnonymizeStage:
    monkeypatch.setenv("PENSTOCK_VAULT_KEYS", new_key("k1"))
    for name, value in variables.items():
        monkeypatch.setenv(f"PENSTOCK_ANONYMIZE_{name}", value)
    return build(parse(Settings), cast(Any, NoState()))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NAMES_MODEL": str(FAKE_HEADS)}, "<PERSON_1> <LOCATION_1> <EMAIL_ADDRESS_1>"),
        ({"NAMES_MODEL": str(FAKE_HEADS), "ENTITIES": '["PERSON"]'}, "<PERSON_1> Rome a@example.org"),
        ({"NAMES_MODEL": str(FAKE_HEADS), "ENTITIES": '["EMAIL_ADDRESS"]'}, "Anna Rome <EMAIL_ADDRESS_1>"),
        ({"NAMES_MODEL": str(FAKE_HEADS), "NAMES_THRESHOLD": "1"}, "Anna Rome <EMAIL_ADDRESS_1>"),
        ({"NAMES_MODEL": "none"}, "Anna Rome <EMAIL_ADDRESS_1>"),
    ],
)
def test_settings_choose_what_is_found(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    assert texts_of(run(built(monkeypatch, **variables), request("Anna Rome a@example.org"))) == [expected]


def test_a_folder_that_is_missing_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_ANONYMIZE_NAMES_MODEL: .*config\.json"):
        built(monkeypatch, NAMES_MODEL=str(tmp_path / "absent"))


def test_a_name_to_look_for_needs_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown PERSON;.*set PENSTOCK_ANONYMIZE_NAMES_MODEL"):
        built(monkeypatch, NAMES_MODEL="none", ENTITIES='["PERSON"]')


@pytest.mark.parametrize(("name", "value"), [("NAMES_THRESHOLD", "0"), ("THREADS", "0")])
def test_a_bad_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(BadSettings) as caught:
        built(monkeypatch, **{name: value})
    assert any(name in sentence for sentence in caught.value.sentences)
