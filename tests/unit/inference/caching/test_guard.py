"""What two messages must have in common beside their meaning."""

from __future__ import annotations

import pytest

from penstock_inference.caching.guard import guard_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("refund order 17", "refund order 71"),
        ("from 9:30 to 10:15", "from 10:15 to 9:30"),
        ("two cards", "three cards"),
        ("is it 1.5 or", "is it 15 or"),
        ("write to <EMAIL_ADDRESS_1>", "write to <EMAIL_ADDRESS_2>"),
        ("from <PERSON_1> to <PERSON_2>", "from <PERSON_2> to <PERSON_1>"),
        ("write to <PERSON_1>", "write to <PHONE_NUMBER_1>"),
        ("is it safe", "is it not safe"),
        ("can I", "can't I"),
        ("can I", "can\u2019t I"),
        ("ist das sicher", "ist das nicht sicher"),
        ("trains from Paris to London", "trains from London to Paris"),
        ("what does Anna earn", "what does Bob earn"),
        ("Anna earns what?", "Bob earns what?"),
        ("Hello. Anna here", "Hello. Bob here"),
        ("the HTTP server", "the FTP server"),
    ],
)
def test_these_differ(one: str, other: str) -> None:
    assert guard_of(one) != guard_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "How can I change my password?"),
        ("What is a river? I wonder.", "I wonder what a river is"),
        ("refund order 17, please", "please refund my order 17"),
        ("Is it safe to not wait?", "is waiting not safe"),
        ("When does Anna come?", "At what time does Anna come?"),
        ("Write to <PERSON_1>", "Please tell <PERSON_1>"),
        ("I'm tired", "i am tired"),
    ],
)
def test_these_do_not(one: str, other: str) -> None:
    assert guard_of(one) == guard_of(other)
