"""Takes out of an answer what does not belong to it. Each function returns the text and how many places it changed.

Half sentences are `trim`'s work, JSON is `structured`'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REPLACEMENT = "\ufffd"

_CONTROL_TOKEN = re.compile(r"<\|[A-Za-z][A-Za-z0-9_]{0,47}\|>")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def drop_control_tokens(text: str) -> tuple[str, int]:
    """Without control tokens such as `<|im_end|>` that a backend left in; those inside code stay."""
    parts: list[str] = []
    dropped = at = 0
    for code in _CODE.finditer(text):
        plain, count = _CONTROL_TOKEN.subn("", text[at : code.start()])
        parts += (plain, code.group())
        dropped += count
        at = code.end()
    plain, count = _CONTROL_TOKEN.subn("", text[at:])
    return "".join([*parts, plain]), dropped + count


def drop_cut_character(text: str) -> tuple[str, int]:
    """Without the replacement characters at the end, which stand for a UTF-8 character cut in two."""
    kept = text.rstrip(REPLACEMENT)
    return kept, int(kept != text)


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, int]:
    """Up to the first stop string, for backends that leave it in."""
    found = [at for at in (text.find(each) for each in stop) if at >= 0]
    return (text[: min(found)], 1) if found else (text, 0)
