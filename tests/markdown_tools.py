"""Markdown as the documentation tests read it: headings, links, fenced code blocks and plain references.

Owns the reading of pages only; what must hold of them is said by test_docs.py and test_howto.py.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
MANUAL = [p for p in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "_generated"} & set(p.parts)]
PAGES = [p for p in FRONT if p.is_file()] + MANUAL

# "docs/spec/exact.md B.5", "docs/spec/golden.md, sections 4 and 5", "docs/model.md"
_REFERENCE = re.compile(
    r"(?P<page>docs/[\w./-]*\w\.md)"
    r"(?:,? (?:(?P<letter>[AB](?:\.\d+)?)\b"
    r"|sections? (?P<number>[AB\d][\d.]*\b(?:(?:,| and| to) \d[\d.]*\b)*)))?"
)


class Reference(NamedTuple):
    """A page named in running text, and the labels of the sections named with it."""

    page: str
    labels: tuple[str, ...]


class CodeBlock(NamedTuple):
    """A fenced block: what stands behind the fence, and its text."""

    info: str
    text: str


@functools.cache
def tokens(page: Path) -> tuple[Token, ...]:
    """The page's tokens, inline ones after their parents."""
    out = []
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        out += [token, *(token.children or [])]
    return tuple(out)


def headings(page: Path) -> list[str]:
    """The text of every heading."""
    found = tokens(page)
    return [b.content for a, b in zip(found, found[1:], strict=False) if a.type == "heading_open"]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def links(page: Path) -> list[str]:
    """Every link target and image source of a page."""
    found = [(t.attrs.get("href") if t.type == "link_open" else t.attrs.get("src")) for t in tokens(page)]
    return [str(target) for target in found if target]


def code_blocks(page: Path) -> list[CodeBlock]:
    """The fenced blocks in order."""
    return [CodeBlock(t.info.strip(), t.content) for t in tokens(page) if t.type == "fence"]


def references(text: str) -> Iterator[Reference]:
    """Pages of docs/ named in running text, across line breaks and comment signs."""
    flat = re.sub(r"\s*\n\s*(#: |# )?", " ", text)
    for match in _REFERENCE.finditer(flat):
        named = match["letter"] or match["number"] or ""
        yield Reference(match["page"], tuple(re.findall(r"[AB](?:\.\d+)?|\d+(?:\.\d+)*", named)))


def has_label(page: Path, label: str) -> bool:
    """Whether a section of that label exists: a heading that begins with it."""
    return any(re.match(rf"{re.escape(label)}(?![\w.]*\d)\b", heading) for heading in headings(page))
