"""Spans from any source as a tree of names, so that a suite can say what a request's trace must look like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Tree = dict[str, Any]
"""Span name -> the tree of its children. Names are unique among siblings in Penstock's traces."""


@dataclass(frozen=True)
class Span:
    """What every source of spans knows of one."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    service: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    """Trace id and span id of each."""


def tree_of(spans: Iterable[Span]) -> Tree:
    """The spans of one trace by name and parent; a span whose parent is not there stands at the top."""
    spans = list(spans)
    known = {span.span_id for span in spans}
    assert len(known) == len(spans), "two spans with one id"
    children: defaultdict[str | None, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent_id if span.parent_id in known else None].append(span)

    def below(parent: str | None) -> Tree:
        tree: Tree = {}
        for span in children[parent]:
            assert span.name not in tree, f"two siblings named {span.name}"
            tree[span.name] = below(span.span_id)
        return tree

    return below(None)


def chain(*names: str, then: Tree | None = None) -> Tree:
    """A tree with one branch: each name the parent of the next."""
    tree = then or {}
    for name in reversed(names):
        tree = {name: tree}
    return tree


def size(tree: Tree) -> int:
    """How many spans a tree has."""
    return sum(1 + size(below) for below in tree.values())


def served(model: str) -> Tree:
    """The trace of a completed request below upstream's own span."""
    return chain(
        "process llm.requests",
        "send llm.preprocessed",
        "process llm.preprocessed",
        "send llm.anonymized",
        "process llm.anonymized",
        "send llm.screened",
        "process llm.screened",
        then={
            f"chat {model}": {},
            **chain(
                "send llm.completions",
                "process llm.completions",
                "send llm.screened-completions",
                "process llm.screened-completions",
                "send llm.results",
            ),
        },
    )


def blocked() -> Tree:
    """The trace of a request that the policy for prompts blocked."""
    return chain(
        "process llm.requests",
        "send llm.preprocessed",
        "process llm.preprocessed",
        "send llm.anonymized",
        "process llm.anonymized",
        "send llm.results",
    )


def refused() -> Tree:
    """The trace of a request that preprocess refused."""
    return {"process llm.requests": {"send llm.results": {}, "send llm.dead-letters": {}}}


PROCESSES = {
    "process llm.requests": "penstock-preprocess",
    "process llm.preprocessed": "penstock-anonymize",
    "process llm.anonymized": "penstock-safety",
    "process llm.screened": "penstock-inference",
    "process llm.completions": "penstock-safety",
    "process llm.screened-completions": "penstock-postprocess",
}
"""Which service has which `process` span."""
