"""Cleaning a request's text, and counting what was changed.

Mojibake is repaired by ftfy, with the settings that never touch text which was right; then line ends,
control, bidirectional and invisible characters, and Unicode NFC. Joiners stay where a script or an emoji
needs them. Quotes, ligatures, widths and HTML entities are the author's and are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import ftfy

from penstock.contracts.events import NormalizationChange

MOJIBAKE: Final = "mojibake"
LINE_ENDS: Final = "line_ends"
CONTROL: Final = "control_characters"
BIDIRECTIONAL: Final = "bidirectional_controls"
INVISIBLE: Final = "invisible_characters"
COMPOSED: Final = "unicode_nfc"

_FTFY = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    restore_byte_a0=False,
    replace_lossy_sequences=False,
    decode_inconsistent_utf8=False,
    fix_c1_controls=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=False,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)

_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL = "\x00-\x08\x0e-\x1f\x7f-\x9f"
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_JOINERS = "\u200c\u200d"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_HIDDEN = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,8}\U000e007f"
"""A subdivision flag: the black flag, tag characters, the cancel tag (UTS 51)."""
_SUSPECT = re.compile(f"{_FLAG}|[{_CONTROL}{_BIDI}{_JOINERS}{_SELECTORS}{_HIDDEN}]")
_IS_CONTROL = re.compile(f"[{_CONTROL}]")
_IS_BIDI = re.compile(f"[{_BIDI}]")
_IS_SELECTOR = re.compile(f"[{_SELECTORS}]")

_JOINING_SCRIPT = re.compile(
    "[\u0600-\u07ff\u0840-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u17ff\u1800-\u18af\u1a20-\u1aaf\u1b00-\u1bff"
    "\ua800-\ua82f\ua840-\ua87f\ua8e0-\ua8ff\ua980-\ua9df\uaae0-\uaaff\uabc0-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    "\U00010a00-\U00010a5f\U00011000-\U000116cf\U0001e900-\U0001e95f]"
)
"""Scripts that write ZWJ and ZWNJ: Arabic, Syriac, the Indic ones and their relatives (RFC 5892, A.1 and A.2)."""
_EMOJI = re.compile(
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d"
    "\u3297\u3299\U0001f000-\U0001faff]"
)
_EMOJI_TAIL = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")
_WIDE_SELECTOR_BASE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(slots=True)
class Normalizer:
    """Normalizes the texts of one request and keeps the tally. Make one for each request."""

    _counts: Counter[str] = field(default_factory=Counter)

    @property
    def changes(self) -> tuple[NormalizationChange, ...]:
        """What was changed so far, by kind; mojibake counts texts, the others characters."""
        return tuple(NormalizationChange(kind=kind, count=count) for kind, count in sorted(self._counts.items()))

    def text(self, text: str) -> str:
        """The text, normalized."""
        if text.isascii() and text.isprintable():
            return text
        text = self._repair(text)
        text, count = _LINE_END.subn("\n", text)
        self._count(LINE_ENDS, count)
        text = self._strip(text)
        return self._compose(text)

    def texts(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Each text, normalized."""
        return tuple(self.text(text) for text in texts)

    def _repair(self, text: str) -> str:
        if text.isascii():
            return text
        repaired = ftfy.fix_text(text, _FTFY)
        self._count(MOJIBAKE, int(repaired != text))
        return repaired

    def _strip(self, text: str) -> str:
        if _SUSPECT.search(text) is None:
            return text
        kept: list[str] = []
        position = 0
        for match in _SUSPECT.finditer(text):
            kept.append(text[position : match.start()])
            position = match.end()
            found = match.group()
            following = text[position : position + 1]
            if len(found) > 1 or _belongs(found, "".join(kept[-3:])[-3:], following):
                kept.append(found)
            else:
                self._count(_kind(found), 1)
        kept.append(text[position:])
        return "".join(kept)

    def _compose(self, text: str) -> str:
        if unicodedata.is_normalized("NFC", text):
            return text
        composed = unicodedata.normalize("NFC", text)
        self._count(COMPOSED, max(1, abs(len(text) - len(composed))))
        return composed

    def _count(self, kind: str, count: int) -> None:
        if count:
            self._counts[kind] += count


def _belongs(character: str, before: str, following: str) -> bool:
    """Whether an invisible character is part of a script's or an emoji's spelling after `before`."""
    last = before[-1:]
    if character in _JOINERS:
        if last and _JOINING_SCRIPT.match(last):
            return True
        base = _EMOJI_TAIL.sub("", before)[-1:] if last else ""
        return character == "\u200d" and bool(_EMOJI.match(base or last) and _EMOJI.match(following))
    if _IS_SELECTOR.match(character):
        if not last or last.isspace() or _IS_SELECTOR.match(last):
            return False
        wide = character > "\ufe0f"
        return bool(_WIDE_SELECTOR_BASE.match(last)) if wide else not last.isalpha() or ord(last) > 0x7F
    return False


def _kind(character: str) -> str:
    if _IS_CONTROL.match(character):
        return CONTROL
    return BIDIRECTIONAL if _IS_BIDI.match(character) else INVISIBLE
