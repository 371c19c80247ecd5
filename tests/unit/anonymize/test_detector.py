"""`penstock_anonymize.detector` and its recognizers: what is found, what is left alone, and what fails closed."""

from __future__ import annotations

import logging
import random
import socket
import time

import pytest

from penstock.contracts.errors import StageError
from penstock_anonymize.book import PlaceholderBook
from penstock_anonymize.detector import CHUNK_CHARACTERS, Detector, merge
from penstock_anonymize.recognizers import ENTITIES
from penstock_anonymize.replacement import Replacer
from penstock_anonymize.scanners import Span


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def found(detector: Detector, text: str, language: str | None = "en") -> list[tuple[str, str]]:
    return [(span.entity, text[span.start : span.end]) for span in detector.detect(text, language)]


@pytest.mark.parametrize("language", ["en", "de", None, "ja"])
@pytest.mark.parametrize(
    ("entity", "value"),
    [
        ("EMAIL_ADDRESS", "ada.lovelace+x@example.org"),
        ("EMAIL_ADDRESS", "ada@host.internal"),
        ("EMAIL_ADDRESS", "zoë@exämple.de"),
        ("PHONE_NUMBER", "+44 20 7946 0958"),
        ("PHONE_NUMBER", "+1-555-010-0001"),
        ("PHONE_NUMBER", "+1 617 846 5775"),  # its digits pass for a partita IVA
        ("PHONE_NUMBER", "+86095742719"),  # and these for a German tax id
        ("PHONE_NUMBER", "(212) 555-0199"),
        ("PHONE_NUMBER", "030 12345679"),
        ("PHONE_NUMBER", "06 12 34 56 78"),
        ("CREDIT_CARD", "4111 1111 1111 1111"),
        ("CREDIT_CARD", "378282246310005"),
        ("IBAN_CODE", "DE89 3704 0044 0532 0130 00"),
        ("IBAN_CODE", "gb82west12345698765432"),
        ("IP_ADDRESS", "192.168.10.24"),
        ("IP_ADDRESS", "2001:db8::8a2e:370:7334"),
        ("MAC_ADDRESS", "00:1A:2B:3C:4D:5E"),
        ("URL", "https://intranet:8080/people/ada?id=7"),
        ("URL", "www.example.museum/ada"),
        ("URL", "linkedin.com/in/ada-lovelace"),
        ("CRYPTO", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        ("US_SSN", "536-22-8145"),
        ("UK_NINO", "AB123456C"),
        ("ES_NIF", "12345678Z"),
        ("ES_NIE", "X1234567L"),
        ("IT_FISCAL_CODE", "RSSMRA85T10A562S"),
        ("DE_TAX_ID", "86095742719"),
        ("FR_NIR", "2 69 05 49 588 157 80"),
        ("FR_NIR", "1 85 05 2A 588 157 59"),
        ("BR_CPF", "529.982.247-25"),
    ],
)
def test_unmistakable_forms_are_found_in_every_language(
    detector: Detector, language: str | None, entity: str, value: str
) -> None:
    assert found(detector, f"Please note {value}, thanks.", language) == [(entity, value)]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "My passport is C03005988", [("US_PASSPORT", "C03005988")]),
        ("en", "The part C03005988", []),
        ("en", "Her NHS number 943 476 5919", [("UK_NHS", "943 476 5919")]),
        ("en", "please call 5550100 now", [("PHONE_NUMBER", "5550100")]),
        ("en", "we sold 5550100 pieces", []),
        ("de", "Mein Personalausweis L01X00T471 ist abgelaufen", []),
        ("pt", "O meu NIF é 123 456 789", [("PT_NIF", "123 456 789")]),
        ("en", "O meu NIF é 123 456 780", []),
        ("it", "passaporto YA1234567", [("IT_PASSPORT", "YA1234567")]),
        ("en", "passaporto YA1234567", []),
        ("it", "partita IVA 16178465775", [("IT_VAT_CODE", "16178465775")]),
        (None, "passaporto YA1234567", [("IT_PASSPORT", "YA1234567")]),
    ],
)
def test_weak_forms_need_their_words(
    detector: Detector, language: str | None, text: str, expected: list[tuple[str, str]]
) -> None:
    assert found(detector, text, language) == expected


@pytest.mark.parametrize("language", ["en", None])
@pytest.mark.parametrize(
    "text",
    [
        "import os; os.path.join(a); np.array([1]); main.py README.md node.js index.html logger.info('x')",
        "End.It was e.g. done.In time. Version 3.11.7, i.e. build 20261121.",
        "At 10:40:38 on 2026-11-21, 21.11.2026 or 11/21/2026; 3:2; 10.000.000 and 1,234,567.89",
        "4111 1111 1111 1112 is no card; GB82 WEST 1234 5698 7654 33 is no account; 12345678A",
        "a@b and @handle and user@ and std::vector<int> x::y",
        "<EMAIL_ADDRESS_1> said <b>hello</b> 1 + 1 = 2 (42 %), chapter 12.4.1",
    ],
)
def test_ordinary_text_and_code_are_left_alone(detector: Detector, language: str | None, text: str) -> None:
    assert found(detector, text, language) == []


def test_an_iban_ends_where_its_checksum_does(detector: Detector) -> None:
    assert found(detector, "IBAN DE89370400440532013000 2 days from today") == [("IBAN_CODE", "DE89370400440532013000")]


@pytest.mark.parametrize(
    "text",
    [
        "\uff41\uff44\uff41\uff20example.org",
        "4111\u00a01111\u20091111\u202f1111",
        "+44\u201120\u20117946\u20110958",
        "\u0664\u0661\u0661\u0661 1111 1111 1111",
    ],
)
def test_other_digits_signs_and_spaces_do_not_hide_it(detector: Detector, text: str) -> None:
    assert [value for _, value in found(detector, f"x {text} y")] == [text]


def test_overlapping_findings_become_one_of_the_surest_type() -> None:
    spans = [Span(0, 5, "URL", 0.5), Span(3, 9, "EMAIL_ADDRESS", 1.0), Span(8, 10, "URL", 0.6), Span(10, 12, "X", 0.5)]
    assert merge(spans) == [Span(0, 10, "EMAIL_ADDRESS", 1.0), Span(10, 12, "X", 0.5)]


def test_the_threshold_and_the_types_are_settings() -> None:
    assert found(Detector(threshold=0.9), "ada@example.org 192.168.10.24") == [("EMAIL_ADDRESS", "ada@example.org")]
    only = Detector(entities=("IP_ADDRESS",))
    assert found(only, "ada@example.org +44 20 7946 0958 192.168.10.24") == [("IP_ADDRESS", "192.168.10.24")]
    assert len({Detector().version, Detector(threshold=0.9).version, only.version}) == 3


def test_nothing_is_lost_at_the_seams_of_a_long_text(detector: Detector) -> None:
    source = random.Random(7)
    for _ in range(20):
        values = [f"ada.{n}@example.org" for n in range(40)] + [f"+44 20 7946 {n:04}" for n in range(40)]
        source.shuffle(values)
        text = "".join(source.choice("ab \n") * source.randint(1, 400) + f" {value} " for value in values)
        assert len(text) > 3 * CHUNK_CHARACTERS
        assert [value for _, value in found(detector, text)] == values


@pytest.mark.parametrize("before", range(CHUNK_CHARACTERS - 40, CHUNK_CHARACTERS + 20, 7))
def test_a_value_across_a_cut_is_found_whole(detector: Detector, before: int) -> None:
    for filler in ("a", "a "):
        text = (filler * before)[:before] + " ada@example.org DE89 3704 0044 0532 0130 00 " + filler * CHUNK_CHARACTERS
        assert found(detector, text) == [
            ("EMAIL_ADDRESS", "ada@example.org"),
            ("IBAN_CODE", "DE89 3704 0044 0532 0130 00"),
        ]


def test_an_address_longer_than_a_chunk_leaves_no_end_behind(detector: Detector) -> None:
    url = "https://example.org/" + "a/" * 3 * CHUNK_CHARACTERS + "secret"
    assert found(detector, f"see {url} please") == [("URL", url)]


@pytest.mark.parametrize(
    "piece", ["a.", "1-", "((", "@a", "a@a.", "1 ", "+1", "://", "a-a.a@", "0x", "DE89", "\uff11 "]
)
def test_hostile_repetition_ends_in_time(detector: Detector, piece: str) -> None:
    begun = time.thread_time()
    detector.detect(piece * (20_000 // len(piece)), None)
    assert time.thread_time() - begun < 10


def test_a_failing_recognizer_fails_the_text_and_quotes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector()

    def broken(_: str) -> list[Span]:
        raise ValueError("ada@example.org")

    for entry in detector._rosters["en"].patterns:
        monkeypatch.setattr(entry.scanner, "scan", broken)
    with pytest.raises(StageError) as caught:
        detector.detect("ada@example.org", "en")
    assert caught.value.code == "recognizer_failed"
    assert "ada" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_recognizer_out_of_time_fails_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_anonymize.scanners.PATTERN_TIMEOUT_S", 1e-9)
    with pytest.raises(StageError) as caught:
        Detector().detect("a.b-c@" * 600, "en")
    assert caught.value.code == "recognizer_timeout"


def test_nothing_is_logged_and_nothing_calls_out(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    caplog.set_level(logging.DEBUG)
    text = "ada@example.org, zoë@exämple.de, GB82 WEST 1234 5698 7654 33, GB82WEST12345698765432, www.example.org"
    spans = detector.detect(text, None)
    book = PlaceholderBook({}, ENTITIES, 10)
    for span in spans:
        book.placeholder(span.entity, text[span.start : span.end])
    assert "ada" not in Replacer().replace(text, spans, book)
    assert caplog.records == []
