"""Tiles as a piece of HTML for a notebook: inline SVG, no script, nothing loaded.

Owns the arrangement and the markup. A run of equal pageblocks in a row is one stroke, so that a machine of
hundreds of gigabytes stays a few hundred kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from spbfast.constants import SpbCategory
from spbfast.tiles.pageblocks import (
    ABSENT_KIND,
    ALL_FREE,
    FREE_KIND,
    KIND_OF,
    KINDS,
    Contents,
    shade,
    tile_shape,
)

WIDTH, GAP = 880, 2
SHADES = (0, 5, 10, ALL_FREE - 1)  # steps of paleness: as many as the eye tells apart
_FRAMES = {SpbCategory.TAINTED: ("#c2410c", ""), SpbCategory.EMPTY: ("#88888880", "2 2")}
_PLAIN_FRAME = ("#88888880", "")


def tiles_html(
    contents: Contents, categories: Sequence[int], titles: Sequence[str], heading: str, note: str = ""
) -> str:
    """Superpageblocks as tiles with a legend.

    Parameters
    ----------
    contents : Contents
        All pageblocks.
    categories : sequence of int
        `SpbCategory` of each superpageblock, which have equally many pageblocks; -1 for none.
    titles : sequence of str
        What is shown while the pointer rests on a superpageblock.
    heading, note : str
        Text above and below.
    """
    per_spb = len(contents.what) // len(titles)
    columns, rows = tile_shape(per_spb)
    cell = max(2, min(14, 128 // columns))
    width, height = columns * cell + 2 * GAP + 2, rows * cell + 2 * GAP + 2
    across = max(1, min(len(titles), WIDTH // width))
    parts = []
    for spb, (category, title) in enumerate(zip(categories, titles, strict=True)):
        own = slice(spb * per_spb, (spb + 1) * per_spb)
        drawn = _tile(Contents(contents.what[own], contents.room[own]), columns, cell, category)
        x, y = spb % across * width, spb // across * height
        parts.append(f'<g transform="translate({x} {y})"><title>{escape(title)}</title>{drawn}</g>')
    size = f"{across * width} {-(-len(titles) // across) * height}"
    svg = (
        f'<svg viewBox="0 0 {size}" style="width:100%;max-width:{across * width}px;height:auto" role="img" '
        f'aria-label="{escape(heading)}">{"".join(parts)}</svg>'
    )
    foot = f'<div style="opacity:.75">{escape(note)}</div>' if note else ""
    return (
        f'<div style="font:13px/1.5 system-ui,sans-serif"><div><b>{escape(heading)}</b></div>'
        f"{svg}{_legend(contents)}{foot}</div>"
    )


def _tile(contents: Contents, columns: int, cell: int, category: int) -> str:
    """One superpageblock: a frame by its category, strokes by kind and paleness."""
    kinds = KIND_OF[contents.what].astype(int)
    levels = (contents.room & ALL_FREE).astype(int)
    steps = np.searchsorted(SHADES, levels, "right") - 1
    steps[kinds == FREE_KIND] = 0
    keys = kinds * len(SHADES) + steps
    strokes: dict[int, list[str]] = {}
    for row, first in enumerate(range(0, len(keys), columns)):
        line = keys[first : first + columns]
        begins = np.flatnonzero(np.diff(line, prepend=-1))
        lengths = np.diff(begins, append=len(line))
        for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True):
            x, y = begin * cell, row * cell + cell / 2
            strokes.setdefault(int(line[begin]), []).append(f"M{x} {y:g}h{length * cell}")
    strokes.pop(ABSENT_KIND * len(SHADES), None)
    stroke, dash = _FRAMES.get(SpbCategory(category), _PLAIN_FRAME) if category >= 0 else _PLAIN_FRAME
    rows = -(-len(keys) // columns)
    frame = (
        f'<rect x=".5" y=".5" width="{columns * cell + 2 * GAP}" height="{rows * cell + 2 * GAP}" rx="2" '
        f'fill="none" stroke="{stroke}" stroke-dasharray="{dash}"/>'
    )
    paths = "".join(
        f'<path stroke="{_css(*divmod(key, len(SHADES)))}" stroke-width="{cell}" d="{"".join(d)}"/>'
        for key, d in sorted(strokes.items())
    )
    return f'{frame}<g transform="translate({GAP + 0.5} {GAP + 0.5})" fill="none">{paths}</g>'


def _css(kind: int, step: int) -> str:
    if kind == FREE_KIND:
        return "#88888830"  # right on light and on dark pages
    return "#{:02x}{:02x}{:02x}".format(*shade(kind, SHADES[step]))


def _legend(contents: Contents) -> str:
    """The kinds that occur, with how many pageblocks there are of each."""
    counts = np.bincount(KIND_OF[contents.what], minlength=len(KINDS))
    items = []
    for kind, nr in enumerate(counts.tolist()):
        if nr and kind != ABSENT_KIND:
            chip = (
                "display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em;"
                f"background:{_css(kind, 0)}"
            )
            about = KINDS[kind]
            items.append(
                f'<span style="margin-right:1.2em;white-space:nowrap" title="{escape(about.meaning)}">'
                f'<span style="{chip}"></span>{escape(about.name)} {nr:,}</span>'
            )
    return f"<div>{''.join(items)}</div>"
