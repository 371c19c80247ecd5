"""How results, tables and summaries look on a terminal.

Everything that came over the wire is shown as plain text: no markup of `rich` in it takes effect, and control
characters are made visible.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from penstock.cli.durations import show_ms
from penstock.cli.sent import Sent
from penstock.contracts.events import StageTiming, Verdict
from penstock.contracts.results import RequestFinished, Status
from penstock.contracts.streams import TokensRestored

_LOG_WIDTH = 200
"""Of tables that are written to a file or a pipe."""

out = Console(highlight=False, soft_wrap=True)
if not out.is_terminal and "COLUMNS" not in os.environ:
    out = Console(highlight=False, soft_wrap=True, width=_LOG_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)

STATUS_STYLE: dict[Status, str] = {
    "completed": "green",
    "blocked": "yellow",
    "cancelled": "cyan",
    "expired": "magenta",
    "failed": "red",
}
_MISSING_SHOWN = 20
_ANSWER_SHOWN = 160
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """The text on one line; control, format and surrogate characters as escapes."""
    return "".join(
        " "
        if character in "\n\t"
        else f"\\u{ord(character):04x}"
        if unicodedata.category(character) in _HIDDEN
        else character
        for character in text
    )


class Telling:
    """Streamed text on the terminal as it comes; each time another stream goes on, its request id first."""

    def __init__(self) -> None:
        self._telling: tuple[str, int] | None = None

    def tell(self, piece: TokensRestored) -> None:
        """Print a piece; after the last one how its stream ended, where that was not as it should be."""
        if self._telling != (piece.request_id, piece.index):
            self.interrupt()
            self._telling = piece.request_id, piece.index
            which = f" ({piece.index + 1})" if piece.index else ""
            out.print(Text(f"{printable(piece.request_id)}{which}: ", style="bold"), end="")
        out.print(Text("\n".join(printable(line) for line in piece.text.split("\n"))), end="")
        if piece.final:
            if piece.state not in (None, "completed"):
                out.print(Text(f" [{piece.state}]", style="yellow"), end="")
            self.interrupt()

    def interrupt(self) -> None:
        """End the line, where one was begun."""
        if self._telling is not None:
            self._telling = None
            out.print("")


def clipped(text: str, most: int) -> str:
    """The text, cut with an ellipsis where it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def result_line(result: RequestFinished, *, width: int = 42, answer: bool = False) -> Text:
    """One result: status, request id, what was redacted, found or wrong, tokens, time in each stage."""
    line = Text(f"{result.status:<10}", style=STATUS_STYLE[result.status])
    line.append(f"{printable(result.id):<{width}} ", style="bold")
    parts = [*_what_happened(result), tokens(result), _times(result)]
    line.append(" · ".join(part for part in parts if part), style="default")
    if answer and result.choices:
        said = clipped(printable(result.choices[0].message.content), _ANSWER_SHOWN)
        line.append(f"\n{'':<10}“{said}”", style="dim italic")
    return line


def _what_happened(result: RequestFinished) -> list[str]:
    said = []
    if result.redactions:
        said.append("redacted " + counted(result.redactions))
        if result.restored:
            said.append(f"restored {result.restored}")
    said += verdicts(result.verdicts)
    if result.changes:
        said.append("normalized " + counted({change.kind: change.count for change in result.changes}))
    if result.repairs:
        said.append("repaired " + counted({repair.kind: repair.count for repair in result.repairs}))
    if result.error is not None:
        said.append(f"{result.error.code}: {clipped(printable(result.error.message), 200)}")
    return said


def counted(counts: dict[str, int]) -> str:
    """`EMAIL_ADDRESS, PERSON (2)`."""
    return ", ".join(f"{printable(name)} ({count})" if count > 1 else printable(name) for name, count in counts.items())


def verdicts(found: Iterable[Verdict]) -> list[str]:
    """What the policy did about what was found: `block prompt: injection 0.98`; what it allowed is left out."""
    best: dict[tuple[str, str, str], float] = {}
    for verdict in found:
        if verdict.action != "allow":
            place = (verdict.action, verdict.direction, verdict.label)
            best[place] = max(best.get(place, 0.0), verdict.score)
    return [
        f"{action} {direction}: {printable(label)} {score:.2f}" for (action, direction, label), score in best.items()
    ]


def tokens(result: RequestFinished) -> str:
    """`12 → 34 tokens`."""
    if result.usage is None:
        return ""
    return f"{result.usage.prompt_tokens} → {result.usage.completion_tokens} tokens"


def _times(result: RequestFinished) -> str:
    if not result.timings:
        return show_ms(result.total_ms)
    return f"{show_ms(result.total_ms)} ({stage_times(result.timings)})"


def stage_times(timings: Iterable[StageTiming]) -> str:
    """`preprocess 3.1, anonymize 5, ...` in milliseconds of processing."""
    return ", ".join(f"{printable(timing.stage)} {timing.processing_ms:.4g}" for timing in timings) + " ms"


def summary(sent: Sent, *, waited: bool) -> list[Text]:
    """What became of a run, and what to do about what went wrong."""
    lines = [Text(f"{sent.delivered} of {sent.lines} records delivered to llm.requests")]
    if waited:
        states = ", ".join(f"{count} {status}" for status, count in sent.statuses.items())
        lines[0].append(f"; {len(sent.results)} terminal results" + (f": {states}" if states else ""))
    if sent.duplicates:
        lines.append(Text(f"{sent.duplicates} repeated a request id of this run: the first result stands for both"))
    if sent.repeated:
        lines.append(Text(f"{sent.repeated} results came a second time: exactly-once is off or broken", style="red"))
    codes = Counter(refused.code for refused in sent.refused)
    for code, count in codes.items():
        first = next(refused for refused in sent.refused if refused.code == code)
        lines.append(Text(f"{count} not sent, {code}, first: line {first.line}: {first.message}", style="red"))
    if waited and sent.waiting:
        lines += _missing(sent)
    return lines


def _missing(sent: Sent) -> list[Text]:
    missing = sent.missing
    shown = ", ".join(f"{printable(name)} (line {sent.line_of[name]})" for name in missing[:_MISSING_SHOWN])
    more = f" and {len(missing) - _MISSING_SHOWN} more" if len(missing) > _MISSING_SHOWN else ""
    return [
        Text(f"{len(missing)} without a terminal result in time: {shown}{more}", style="red"),
        Text(
            "look at `penstock status` for lag and dead services; a request id that was accepted before gets no "
            "second result: send with --unique-ids to make them new"
        ),
    ]
