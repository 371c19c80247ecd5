"""No text makes a rule detector slow: doubling a hostile text about doubles the time."""

import time

import pytest

from penstock_safety.detector import Detector
from penstock_safety.rules.encoded import EncodedPayloads
from penstock_safety.rules.injection import InjectionPhrases
from penstock_safety.rules.invisible import InvisibleText
from penstock_safety.rules.secrets import Secrets

LENGTH = 100_000
LIMIT_SECONDS = 6.0
"""A tenth of this is usual; quadratic matching takes minutes."""

HOSTILE = {
    "verbs": "ignore ",
    "leak words": "show me the full ",
    "spelled out": "a b c d e ",
    "spelled attack": "i g n o r e a l l ",
    "refusals": "never say that you ",
    "zero width": "a\u200b",
    "leet": "1gn0re 4ll ",
    "base64": "QUJD",
    "hex": "41",
    "broken hex": "41 " * 11 + "zz ",
    "binary": "01",
    "percent": "%41",
    "entities": "&#65;",
    "broken entities": "&a;&",
    "escapes": "\\x41",
    "assignments": "password=",
    "underscores": "a_",
    "dots": "a.b.c.d.",
    "key begins": "-----BEGIN PRIVATE KEY-----",
    "key ends": "A" * 90 + "-----END PRIVATE KEY-----",
    "long body": "A",
    "urls": "http://a:",
    "tokens": "eyJ",
    "long tokens": "eyJ" + "a" * 3990 + ".",
    "bearer": "Bearer ",
    "many pieces": "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ= ",
    "nested pieces": "YUdWc2JHOGdkMjl5YkdRZ2FHVnNiRzhnZDI5eWJHUWdhR1ZzYkc4Z2QyOXliR1E9 ",
    "hex words": "68656c6c6f20776f726c64206865 ",
    "decode": "decode base64 ",
    "blank": " ",
    "bidi": "\u202e",
    "image": "![a](https://a?",
}
DETECTORS: list[Detector] = [Secrets(), InjectionPhrases(), EncodedPayloads(), InvisibleText()]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hundred_thousand_hostile_characters_take_linear_time(detector: Detector, unit: str) -> None:
    text = (unit * (LENGTH // len(unit) + 1))[:LENGTH]
    started = time.process_time()
    detector.detect([text])
    assert time.process_time() - started < LIMIT_SECONDS
