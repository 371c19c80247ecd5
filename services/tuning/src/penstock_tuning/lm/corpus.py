"""The documents of which a fixed part measures every language model, whatever it was trained on.

Each carries its source group, language and a split key. The key leaves the language out, so that a page and its
translations fall on the same side of the split. What training reads comes from the data package's task `text`.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_tuning.data.example import LANGUAGES

_DOC_SETS = (
    ("react_docs", "react_docs_de"),
    ("react_docs", "react_docs_es"),
    ("react_docs", "react_docs_fr"),
    ("react_docs", "react_docs_it"),
    ("react_docs", "react_docs_pt-br"),
    ("fastapi_docs", "fastapi_docs"),
    ("hf_course", "hf_course"),
    ("opensource_guide", "opensource_guide"),
    ("rust_book", "rust_book"),
    ("bash_ebook", "bash_ebook"),
)
_NOVELS = (
    ("de", "gitenberg_de_Die-Verwandlung"),
    ("es", "gitenberg_es_Don-Quijote"),
    ("fr", "gitenberg_fr_Candide"),
    ("fr", "gitenberg_fr_Le-tour-du-monde-en-quatre-vingts-jours"),
    ("fr", "gitenberg_fr_Madame-Bovary"),
    ("pt", "gitenberg_pt_Dom-Casmurro"),
)
_HELD_OUT_NOVELS = ("62_a_princess_of_mars.txt", "11_alices_adventures_in_wonderland.txt")
_LANGUAGE_PARTS = frozenset((*LANGUAGES, "pt-br", "pt_br"))
_FRAME_START = re.compile(r"\*\*\* ?START OF TH[^\n]*\*\*\*|\*END\*THE SMALL PRINT[^\n]*")
_FRAME_END = re.compile(r"\*\*\* ?END OF TH|End of (the )?Project Gutenberg|Fin del? Project Gutenberg")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
_SECTION_BYTES = 20_000
# Bytes of text at most for one source and language. A change changes what every model is measured on.
_DOCS_BYTES = 450_000
_TLDR_BYTES = 200_000
_ENGLISH_NOVEL_BYTES = 1_300_000
_OTHER_NOVEL_BYTES = 250_000
_LAW_BYTES = 300_000
_SEED = 7
HELD_OUT_PERCENT = 3


@dataclass(frozen=True)
class Document:
    """One text with where it comes from."""

    group: str
    source: str
    language: str
    key: str
    text: str


def is_held_out(key: str, percent: int = HELD_OUT_PERCENT) -> bool:
    """Whether a split key falls into the held-out part; stable across runs and machines."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100 < percent


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, or as Latin-1 where it is not UTF-8 (old Gutenberg files)."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return raw.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")


def strip_gutenberg(text: str) -> str:
    """Cut Project Gutenberg's header and licence off."""
    start = _FRAME_START.search(text)
    body = text[start.end() :] if start else text
    end = _FRAME_END.search(body, len(body) // 2)
    return (body[: end.start()] if end else body).strip()


def unwrap(text: str) -> str:
    """Join the hard-wrapped lines of each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def split_key(family: str, path: str) -> str:
    """Name a page without its language, so that translations share the key."""
    parts = [part for part in path.split("/") if part.lower() not in _LANGUAGE_PARTS]
    return f"{family}:{'/'.join(parts[-3:])}"


def _cap(documents: Iterable[Document], limit: int) -> Iterator[Document]:
    """Yield a seeded sample of at most `limit` bytes."""
    pool = list(documents)
    random.Random(_SEED).shuffle(pool)
    used = 0
    for document in pool:
        used += len(document.text.encode())
        if used > limit:
            return
        yield document


def _pages(folder: Path, family: str) -> Iterator[Document]:
    for file in sorted(folder.glob("text_*.jsonl")):
        language = file.stem.removeprefix("text_")
        rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
        yield from _cap(
            (
                Document(
                    "technical",
                    folder.name,
                    language,
                    split_key(family, row["file"]),
                    _FRONT_MATTER.sub("", row["text"]).strip(),
                )
                for row in rows
            ),
            _DOCS_BYTES,
        )


def _sections(text: str) -> Iterator[str]:
    """Cut a long text at paragraph ends into sections of about `_SECTION_BYTES`."""
    section: list[str] = []
    size = 0
    for paragraph in text.split("\n\n"):
        section.append(paragraph)
        size += len(paragraph)
        if size > _SECTION_BYTES:
            yield "\n\n".join(section)
            section, size = [], 0
    if section:
        yield "\n\n".join(section)


def _novels(text_root: Path) -> Iterator[Document]:
    english = sorted((text_root / "gutenberg_novels").glob("[0-9]*.txt"))
    share = _ENGLISH_NOVEL_BYTES // (len(english) - len(_HELD_OUT_NOVELS))
    for file in english:
        body = unwrap(strip_gutenberg(read_text(file)))
        held_out = file.name in _HELD_OUT_NOVELS
        for n, section in enumerate(_sections(body[: _DOCS_BYTES if held_out else share])):
            key = "novel-held-out" if held_out else f"novel-train:{file.name}:{n}"
            yield Document("novels", "gutenberg_novels", "en", key, section)
    for language, name in _NOVELS:
        for file in sorted((text_root / name).glob("*-8.txt")):
            body = unwrap(strip_gutenberg(read_text(file)))[:_OTHER_NOVEL_BYTES]
            for n, section in enumerate(_sections(body)):
                yield Document("novels", name, language, f"novel:{name}:{n}", section)


def _law(text_root: Path) -> Iterator[Document]:
    rows = (
        json.loads(line)
        for line in (text_root / "gesetze_de" / "text_de.jsonl").read_text(encoding="utf-8").splitlines()
    )
    documents = (
        Document("law", "gesetze_de", "de", f"law:{row['file']}", _FRONT_MATTER.sub("", row["text"])[:12_000])
        for row in rows
    )
    yield from _cap(documents, _LAW_BYTES)


def _tldr(root: Path) -> Iterator[Document]:
    for language, stem in (
        ("en", "en"),
        ("de", "de"),
        ("fr", "fr"),
        ("es", "es"),
        ("it", "it"),
        ("pt", "pt_BR"),
    ):
        lines = (root / "benign" / "tldr_pages" / f"tldr_{stem}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = (json.loads(line) for line in lines)
        documents = (Document("technical", "tldr_pages", language, f"tldr:{row['page']}", row["text"]) for row in rows)
        yield from _cap(documents, _TLDR_BYTES)


def documents(root: Path) -> Iterator[Document]:
    """Yield every document, capped per source and language."""
    text_root = root / "text"
    for family, name in _DOC_SETS:
        yield from _pages(text_root / name, family)
    yield from _novels(text_root)
    yield from _law(text_root)
    yield from _tldr(root)


def held_out(document: Document) -> bool:
    """Whether a document belongs to the held-out part."""
    if document.key.startswith("novel-train:"):
        return False
    # Few statutes fit under the cap, so a larger share is needed to hold any out.
    percent = HELD_OUT_PERCENT * (5 if document.group == "law" else 1)
    return document.key == "novel-held-out" or is_held_out(document.key, percent)
