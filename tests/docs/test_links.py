"""Links within the repository lead somewhere, to the heading too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def links() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for link in _LINK.findall(_CODE.sub("", page.read_text())):
            if not re.match(r"[a-z]+:", link):
                yield str(page.relative_to(ROOT)), link


def anchors(page: Path) -> set[str]:
    """The anchors that headings get, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead(page: str, link: str) -> str | None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    if not target.exists():
        return f"{page}: {path} does not exist"
    if anchor and anchor not in anchors(target):
        return f"{page}: {target.name} has no heading #{anchor}"
    return None


@pytest.mark.parametrize(("page", "link"), sorted(set(links())))
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    assert dead(page, link) is None


def test_a_dead_link_is_noticed() -> None:
    assert dead("docs/guide.md", "nowhere.md") is not None
    assert dead("docs/guide.md", "#nowhere") is not None
    assert dead("docs/guide.md", "security.md#nowhere") is not None


def test_every_page_is_linked_from_another() -> None:
    linked = {((ROOT / page).parent / link.partition("#")[0]).resolve() for page, link in links()}
    assert [page for page in PAGES if page.name != "README.md" and page not in linked] == []
