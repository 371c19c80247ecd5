"""The attribution that every finished model carries: where the text that it read is from, and under which licence."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from penstock_tuning.data.manifest import Manifest, Source

CARD = "README.md"
NOTICE = "NOTICE.md"


def sources_read(manifest: Manifest, tasks: Collection[str] = ("text",)) -> list[Source]:
    """Each source of the training side for these tasks, once, by name."""
    found = (source for _, source in sorted(manifest.sources.items()) if source.split == "train")
    return [source for source in found if {*source.tasks} & {*tasks}]


def origins(sources: Iterable[Source]) -> list[str]:
    """Where the text came from, each once."""
    return sorted({source.origin for source in sources})


def notice(sources: Iterable[Source], name: str, more: str = "") -> str:
    """NOTICE.md: a row for each public set whose text was read; `more` is a paragraph after them."""
    rows: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        rows.setdefault((source.origin, source.licence), []).append(source.name)
    table = "\n".join(
        f"| {origin} | {licence} | {', '.join(sorted(names))} |" for (origin, licence), names in sorted(rows.items())
    )
    return f"""# Attribution: {name}

The weights were trained on the sets below. No text of them is shipped; texts were cut, tokenized and mixed.

| origin | licence | parts |
| --- | --- | --- |
{table}
{f"{chr(10)}{more}{chr(10)}" if more else ""}"""
