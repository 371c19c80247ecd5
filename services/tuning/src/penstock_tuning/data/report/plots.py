"""Stacked horizontal bars as small SVG files, without a plotting package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

COLOURS = (
    "#1b6ca8",
    "#d1711f",
    "#a8324a",
    "#3a8f4d",
    "#6d4fa3",
    "#c9a227",
    "#2a9d8f",
    "#777777",
    "#e07a9b",
    "#8c6d46",
)
_WIDTH, _LABEL, _ROW, _TOP = 720, 190, 16, 40


def bars(path: Path, title: str, rows: Sequence[tuple[str, Mapping[str, float]]], series: Sequence[str]) -> None:
    """One bar for each row, made of the values of the series in their order; the longest fills the width."""
    longest = max((sum(values.get(name, 0) for name in series) for _, values in rows), default=0) or 1
    scale = (_WIDTH - _LABEL - 70) / longest
    height = _TOP + _ROW * len(rows) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="4" y="13" font-weight="bold">{escape(title)}</text>',
    ]
    at = 4.0
    for number, name in enumerate(series):
        parts.append(f'<rect x="{at:.0f}" y="20" width="9" height="9" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{at + 12:.0f}" y="28">{escape(name)}</text>')
        at += 26 + 6 * len(name)
    for index, (label, values) in enumerate(rows):
        top = _TOP + _ROW * index
        parts.append(f'<text x="{_LABEL - 6}" y="{top + 10}" text-anchor="end">{escape(label)}</text>')
        left = float(_LABEL)
        for number, name in enumerate(series):
            width = values.get(name, 0) * scale
            if width > 0:
                parts.append(
                    f'<rect x="{left:.1f}" y="{top + 1}" width="{max(width, 0.4):.1f}" height="{_ROW - 4}" '
                    f'fill="{_colour(number)}"/>'
                )
                left += width
        total = sum(values.get(name, 0) for name in series)
        parts.append(f'<text x="{left + 4:.1f}" y="{top + 10}" fill="#444444">{total:,.0f}</text>')
    path.write_text("\n".join([*parts, "</svg>", ""]), "utf-8")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
