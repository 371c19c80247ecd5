"""A trace as a tree: who called whom, when after the start, for how long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rich.text import Text
from rich.tree import Tree

from penstock.cli.durations import show_ms
from penstock.cli.render import printable
from penstock.cli.viewer import ViewedSpan


def tree(spans: Iterable[ViewedSpan], title: str) -> Tree:
    """All spans under the title; one whose parent is not there stands at the top and says so."""
    ordered = sorted(spans, key=lambda span: (span.start_us, span.span_id))
    known = {span.span_id for span in ordered}
    children: defaultdict[str | None, list[ViewedSpan]] = defaultdict(list)
    for span in ordered:
        children[span.parent_id if span.parent_id in known else None].append(span)
    begin = ordered[0].start_us if ordered else 0
    root = Tree(Text(title, style="bold"))
    pending = [(root, span) for span in reversed(children[None])]
    seen: set[str] = set()
    while pending:
        branch, span = pending.pop()
        if span.span_id in seen:  # a viewer may hold both sides of a span under one id
            continue
        seen.add(span.span_id)
        node = branch.add(_label(span, begin))
        pending += [(node, child) for child in reversed(children[span.span_id])]
    return root


def _label(span: ViewedSpan, begin: int) -> Text:
    label = Text(printable(span.name), style="red" if span.error else "default")
    label.append(f"  {show_ms(span.duration_us / 1000)}", style="bold")
    label.append(f"  +{show_ms((span.start_us - begin) / 1000)}  {printable(span.service)}", style="dim")
    if span.error:
        label.append(f"  {printable(span.error)}", style="red")
    return label
