"""Text hidden in an encoding: base64, hexadecimal, escapes, percent-encoding, HTML entities, rot13, reversal.

Decoded text counts when the injection rules find something in it, or when the words around it ask to decode and
obey it. Decoding is bounded in depth, and what is decoded is never longer than its encoding, so the work is linear
in the text; there is no number of pieces after which one would go unseen.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock_safety.detector import Finding, digest_of
from penstock_safety.rules.injection import InjectionPhrases

LABEL = "encoded_payload"
RELEASE = "1"

MAX_DEPTH = 3
SURE = 0.8
"""Whole-text decodings (rot13, reversal) turn up chance words: only strong phrases count."""

_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_\-=])[A-Za-z0-9+/_\-]{20,}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x)?(?:[0-9a-fA-F]{2}[ :,]?){12,}[0-9a-fA-F]?(?![0-9A-Za-z])")
_ESCAPE = r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\u\{[0-9a-fA-F]{1,6}\}"
_BACKSLASH = re.compile(rf"(?:{_ESCAPE})(?:{_ESCAPE}| (?=\\)){{5,}}")
_BACKSLASH_ONE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\})")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}|[A-Za-z0-9_.~+\-]){8,}")
_ENTITY = r"&(?:#\d{1,6}|#[xX][0-9a-fA-F]{1,5}|[a-z]{2,6});"
_ENTITIES = re.compile(rf"{_ENTITY}(?:[^&\n]{{0,20}}{_ENTITY}){{2,}}")
_BINARY = re.compile(r"(?<![01])(?:[01]{8}[ ,]?){12,}(?![01])")
_WORDS = re.compile(r"[A-Za-zÀ-ÿ]{2,}")
_OBEY = re.compile(
    r"(?i)\b(?:decode|decrypt|decipher|base\s?64|hex|rot\W?13|encoded)\b[^\n]{0,120}"
    r"\b(?:follow|execute|obey|run|carry out|comply|perform|do what|act on|answer)\b"
    r"|\b(?:follow|execute|obey|run|carry out|interpret|process|treat)\b[^\n]{0,60}"
    r"\b(?:encoded|base\s?64|hex|rot\W?13|cipher)"
)


# A phrase worth a full scan holds one of these; ordinary text, rotated or reversed, next to never does.
_STEMS = re.compile(
    r"(?i)ignor|disregard|forget|overrid|bypass|instruc|prompt|restrict|anything now|unfilter|uncensor|jailbreak|"
    r"vergiss|missacht|anweisung|oubli|consigne|olvida|dimentica|esque[cç]a|desconsider"
)


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    start: int
    end: int


class EncodedPayloads:
    """Implements `Detector`."""

    name = "encoded_payloads"
    labels = frozenset({LABEL})

    def __init__(self) -> None:
        self._injection = InjectionPhrases()
        patterns = (_BASE64, _HEX, _BACKSLASH, _PERCENT, _ENTITIES, _BINARY, _OBEY, _STEMS)
        self.digest = digest_of((self.name, RELEASE, self._injection.digest, *(p.pattern for p in patterns)))

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        """One list of findings per window; the span is the encoded text."""
        return [self._scan(window) for window in windows]

    def _scan(self, text: str) -> list[Finding]:
        obey = _OBEY.search(text) is not None
        found: list[Finding] = []
        for piece in _pieces(text):
            score = self._score(piece.text, obey)
            if score:
                found.append(Finding(LABEL, score, piece.start, piece.end, self.name))
        rotated, reversed_ = codecs.encode(text, "rot13"), text[::-1]
        if _STEMS.search(rotated):
            found.extend(
                Finding(LABEL, hit.score, hit.start, hit.end, self.name)
                for hit in self._injection.scan(rotated)
                if hit.score >= SURE
            )
        if _STEMS.search(reversed_):
            found.extend(
                Finding(LABEL, hit.score, len(text) - hit.end, len(text) - hit.start, self.name)
                for hit in self._injection.scan(reversed_)
                if hit.score >= SURE
            )
        return found

    def _score(self, decoded: str, obey: bool) -> float:
        """The worst of the decoded text and of what is encoded in it."""
        best = 0.0
        level = [(decoded, 1)]
        while level:
            text, depth = level.pop()
            best = max([best, *(hit.score for hit in self._injection.scan(text))])
            if obey and len(_WORDS.findall(text)) >= 3:
                best = max(best, 0.75)
            if depth < MAX_DEPTH:
                level.extend((piece.text, depth + 1) for piece in _pieces(text))
        return best


def _pieces(text: str) -> Iterator[_Piece]:
    """What in the text decodes to readable text, with the span of its encoded form."""
    for start, end, decoded in _candidates(text):
        if decoded and _readable(decoded):
            yield _Piece(decoded, start, end)


def _candidates(text: str) -> Iterator[tuple[int, int, str | None]]:
    for match in _BASE64.finditer(text):
        # At the start of a window the chunk may have begun before it, at any of the four places in a group.
        for shift in range(4 if match.start() == 0 else 1):
            yield match.start(), match.end(), _from_base64(match.group()[shift:])
    for match in _HEX.finditer(text):
        digits = re.sub(r"[ :,]|^0x", "", match.group())
        for shift in range(2 if match.start() == 0 else 1):
            even = (len(digits) - shift) // 2 * 2
            yield match.start(), match.end(), _readable_bytes(bytes.fromhex(digits[shift : shift + even]))
    for match in _BINARY.finditer(text):
        bits = re.sub(r"[ ,]", "", match.group())
        yield match.start(), match.end(), _readable_bytes(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    if "\\" in text:
        for match in _BACKSLASH.finditer(text):
            yield match.start(), match.end(), _BACKSLASH_ONE.sub(_from_escape, match.group())
    if text.count("%") >= 4:
        for match in _PERCENT.finditer(text):
            if match.group().count("%") >= 4:
                yield match.start(), match.end(), urllib.parse.unquote(match.group(), errors="replace")
    if "&" in text:
        for match in _ENTITIES.finditer(text):
            yield match.start(), match.end(), html.unescape(match.group())


def _from_base64(chunk: str) -> str | None:
    body = chunk.rstrip("=").replace("-", "+").replace("_", "/")
    if len(body) % 4 == 1:
        body = body[:-1]
    try:
        return _readable_bytes(base64.b64decode(body + "=" * (-len(body) % 4), validate=True))
    except binascii.Error:
        return None


def _from_escape(match: re.Match[str]) -> str:
    point = int(next(group for group in match.groups() if group), 16)
    return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else "\ufffd"


def _readable_bytes(raw: bytes) -> str | None:
    """As UTF-8 or UTF-16; a few bytes that are neither do not hide the rest."""
    for encoding in ("utf-8", "utf-16-le"):
        decoded = raw.decode(encoding, errors="replace")
        if _readable(decoded):
            return decoded
    return None


def _readable(text: str) -> bool:
    """At least nine tenths printable characters, and more than half letters, digits and spaces."""
    printable = sum(char.isprintable() or char in "\n\r\t" for char in text)
    plain = sum(char.isalnum() or char == " " for char in text)
    return len(text) >= 6 and printable >= 0.9 * len(text) and plain > 0.5 * len(text)
