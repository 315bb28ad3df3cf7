"""Sphinx: pages are Markdown; the key reference is generated from the configuration models at each build."""

from __future__ import annotations

from pathlib import Path

import spbfast
from spbfast.config.presets import preset_steps
from spbfast.config.schema import KeyDoc, key_docs

project = "spbfast"
author = "spbfast authors"
copyright = "2026, spbfast authors"
version = release = spbfast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False
autodoc_typehints = "none"
napoleon_google_docstring = False

html_theme = "pydata_sphinx_theme"
html_title = "spbfast"
# Pages with nothing below them have no navigation to show, and tables need the room.
html_sidebars = {"*": [], "_generated/*": []}
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}


def write_key_reference() -> None:
    """The table of every configuration key, and the ladder of presets."""
    out = Path(__file__).parent / "_generated"
    out.mkdir(exist_ok=True)
    docs = key_docs()
    sections = [
        d.path for d in docs if any(o.path.startswith(f"{d.path}.") for o in docs) and "." not in d.path
    ]
    groups = {"the job": [d for d in docs if "." not in d.path and d.path not in sections]}
    for section in sections:
        members = [d for d in docs if d.path.startswith(f"{section}.")]
        groups |= _split(section, members)
    lines = ["# Configuration keys", "", "Generated from the models; `spbfast explain KEY` prints the same."]
    for title, members in groups.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| key | value | default | meaning | source |",
            "|---|---|---|---|---|",
        ]
        lines += [row(doc) for doc in members]
    lines += ["", "## Presets", "", "| preset | what it changes in the one above |", "|---|---|"]
    lines += [f"| `{name}` | {changes} |" for name, changes in preset_steps()]
    path = out / "keys.md"
    text = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _split(section: str, members: list[KeyDoc]) -> dict[str, list[KeyDoc]]:
    """One table per section, and one per kind of element in it."""
    inner = [d for d in members if d.kind == "section" and d.path.count(".") == 1]
    out = {section: [d for d in members if not any(d.path.startswith(f"{i.path}") for i in inner)]}
    for head in inner:
        out[f"{head.path}: {head.text}"] = [d for d in members if d.path.startswith(f"{head.path}.")]
    return {title: rows for title, rows in out.items() if rows}


def row(doc: KeyDoc) -> str:
    """One line of the table."""
    cells = [f"`{doc.path}`", doc.kind, f"`{doc.default}`" if doc.default else "", doc.text, doc.source]
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


write_key_reference()
