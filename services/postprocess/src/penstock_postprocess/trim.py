"""Cuts the half sentence off an answer that ended at its token limit.

The rule is deliberately simple: back to the last end of a sentence, line or code block. It leaves code
and JSON alone, and an answer without any such end stays whole.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
# the second kind of mark (ideographic, Devanagari, Arabic) needs no space after it
_SENTENCE_END = re.compile(
    r"""
    (?: (?P<mark> [.!?\u2026]+ ) | [\u3002\uFF01\uFF1F\u0964\u061F]+ )
    ["'\u201D\u2019\u00BB)\]*_]*
    (?(mark) (?=\s|\Z) )
    """,
    re.VERBOSE,
)
_NO_END = re.compile(
    r"""
    (?: ^[ \t]*\d{1,3}
      | (?: ^ | [\s("'\u201C] ) (?: [A-Za-z] | Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|vs|cf|approx|e\.g|i\.e|z\.B|bzw|ca )
    )\Z
    """,
    re.MULTILINE | re.VERBOSE,
)
"""What a full stop may follow without ending a sentence: the number of a list item, an initial, an abbreviation."""


def trim_half_sentence(text: str) -> tuple[str, int]:
    """Up to the last whole sentence or line, and 1 where that cut something; never empty, never inside code."""
    stripped = text.strip()
    if stripped.startswith(("{", "[")):
        return text, 0
    fences = list(_FENCE.finditer(text))
    if len(fences) % 2:
        return text, 0
    # what is behind the last closed code block; the block itself stays
    start = 0
    if fences:
        line_end = text.find("\n", fences[-1].end())
        start = len(text) if line_end < 0 else line_end + 1
    cut = max(start, _last_sentence(text, start), text.rstrip().rfind("\n", start))
    kept = text[:cut].rstrip()
    if not kept or kept == text.rstrip():
        return text, 0
    return kept, 1


def _last_sentence(text: str, start: int) -> int:
    """Where the last whole sentence ends; `start` where there is none."""
    for match in reversed(list(_SENTENCE_END.finditer(text, start))):
        if match["mark"] != "." or not _NO_END.search(text[start : match.start()][-40:]):
            return match.end()
    return start
