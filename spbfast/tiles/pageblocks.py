"""Pageblocks as tiles: what one is drawn as, in which colour, and the two bytes that say so.

Owns the kinds of pageblocks with their colours and meanings, which the memory map (results/memorymap), the
picture of a Zone in a notebook and images share. Knows neither state nor pages of HTML.

A pageblock is two bytes. `what`: bits 0 to 2 are the types that have pages in use (1 << migratetype), bit 3
is a contiguous allocation, bit 4 a pinned page, bits 5 to 7 the label, 7 where there is no memory. `room`:
bits 0 to 3 are the free share in steps of a fifteenth, 0 and 15 only if none or all of it is free; bits 4 to
6 are the allocator's own marks, the content bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spbfast.constants import MOVABLE, PB_PAGES, RECLAIMABLE, UNMOVABLE, Mt

HELD, PINNED, LABEL_SHIFT, NO_MEMORY = 1 << 3, 1 << 4, 5, 7
MARK_SHIFT, ALL_FREE = 4, 15
TYPES = 1 << UNMOVABLE | 1 << MOVABLE | 1 << RECLAIMABLE
PALEST = 0.78  # how far the colour of a nearly free pageblock is from that of its kind towards "free"


class TileKind(NamedTuple):
    """What a pageblock is drawn as."""

    name: str
    meaning: str
    light: str
    dark: str


KINDS = (
    TileKind("free", "no page in use", "#e6eaef", "#2a313a"),
    TileKind("movable", "movable pages only", "#4a9fd8", "#3f94d1"),
    TileKind("unmovable", "unmovable pages only", "#d55e00", "#ee6c1c"),
    TileKind("reclaimable", "reclaimable pages only", "#009e73", "#1fb587"),
    TileKind("unmovable + reclaimable", "both kinds of kernel pages", "#8a5a28", "#b98a4c"),
    TileKind("mixed", "movable pages beside kernel pages", "#b0428f", "#d573ba"),
    TileKind("gigantic page", "of a superpageblock that was handed out whole", "#e8b000", "#f2c230"),
    TileKind("no memory", "outside the zone", "#ffffff00", "#ffffff00"),
)
FREE_KIND, HELD_KIND, ABSENT_KIND = 0, 6, 7
_BY_TYPES = {
    0: 0,
    1 << MOVABLE: 1,
    1 << UNMOVABLE: 2,
    1 << RECLAIMABLE: 3,
    1 << UNMOVABLE | 1 << RECLAIMABLE: 4,
}
LABELS = (
    TileKind("unmovable", "", "#d55e00", "#ee6c1c"),
    TileKind("movable", "", "#4a9fd8", "#3f94d1"),
    TileKind("reclaimable", "", "#009e73", "#1fb587"),
    TileKind("highatomic", "", "#e8b000", "#f2c230"),
    TileKind("CMA", "", "#882255", "#c05a8c"),
)
assert len(LABELS) == len(Mt)


class Contents(NamedTuple):
    """All pageblocks of a zone at one moment, two bytes each: uint8 [pageblocks]."""

    what: np.ndarray
    room: np.ndarray


def kind_of_what(what: int) -> int:
    """Index into `KINDS` of a pageblock, from its first byte."""
    if what >> LABEL_SHIFT == NO_MEMORY:
        return ABSENT_KIND
    if what & HELD:
        return HELD_KIND
    return _BY_TYPES.get(what & TYPES, 5)


KIND_OF = np.array([kind_of_what(what) for what in range(256)], np.uint8)


def room_level(free_pages: np.ndarray) -> np.ndarray:
    """Free share in steps of a fifteenth; 0 and 15 only for none and all of a pageblock's pages."""
    level = np.clip((free_pages * ALL_FREE + PB_PAGES // 2) // PB_PAGES, 1, ALL_FREE - 1)
    return np.where(free_pages <= 0, 0, np.where(free_pages >= PB_PAGES, ALL_FREE, level)).astype(np.uint8)


def tile_shape(nr: int) -> tuple[int, int]:
    """Columns and rows of a superpageblock's tile of `nr` pageblocks: a square, or twice as wide as high."""
    bits = max(nr - 1, 0).bit_length()
    columns = 1 << -(-bits // 2)
    return columns, -(-nr // columns)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def shade(kind: int, level: int, *, dark: bool = False) -> tuple[int, int, int]:
    """Colour of a pageblock of a kind of which `level` fifteenths are free: the freer, the paler."""
    full, empty = (rgb(KINDS[k].dark if dark else KINDS[k].light) for k in (kind, FREE_KIND))
    if kind in (HELD_KIND, ABSENT_KIND):
        return full
    paler = PALEST * level / ALL_FREE
    red, green, blue = (round(a + (b - a) * paler) for a, b in zip(full, empty, strict=True))
    return red, green, blue
