"""The half sentence at the end of an answer."""

from __future__ import annotations

import time

import pytest

from penstock_postprocess.trim import trim_half_sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two thr", "One."),
        ("One! Two? Three fo", "One! Two?"),
        ('He said "go." Then h', 'He said "go."'),
        ("It costs 3.50 euros. And th", "It costs 3.50 euros."),
        ("Ask Dr. Who. Then Dr. Wh", "Ask Dr. Who."),
        ("First it is e.g. this. Then i.e. th", "First it is e.g. this."),
        ("Wait… and th", "Wait…"),
        ("これはペンです。それは", "これはペンです。"),
        ("यह है। वह", "यह है।"),
        ("- one\n- two\n- thr", "- one\n- two"),
        ("Steps:\n1. Open it.\n2. Clo", "Steps:\n1. Open it."),
        ("Steps:\n1. Open it\n2. Clo", "Steps:\n1. Open it"),
        ("Title\n\nBody without en", "Title"),
        ("```\ncode.\nmore\n```\nThen a se", "```\ncode.\nmore\n```"),
        ("```\ncode\n```\nDone. Then a se", "```\ncode\n```\nDone."),
        ("Dear <PERSON_1>. Your <EMAIL_ADD", "Dear <PERSON_1>."),
    ],
)
def test_goes_back_to_the_last_whole_sentence_or_line(text: str, expected: str) -> None:
    assert trim_half_sentence(text) == (expected, 1)


@pytest.mark.parametrize(
    "text",
    [
        "One. Two.",
        "One. Two.\n",
        "no end at all",
        "see e.g. this",
        "1. first",
        "Look:\n```python\nx = 1. \ny =",
        '{"a": "One. Two',
        '[1, "Yes. No',
        "",
        "   ",
        "...",
    ],
)
def test_leaves_whole_answers_code_json_and_what_has_no_end(text: str) -> None:
    assert trim_half_sentence(text) == (text, 0)


def test_long_answers_take_no_time() -> None:
    text = "e.g. " * 40_000 + "word"
    started = time.thread_time()
    trim_half_sentence(text)
    assert time.thread_time() - started < 5
