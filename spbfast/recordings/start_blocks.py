"""Blocks of a real machine's start that actors free: which pages in use are whose.

Owns the choice. With a capture the page flags tell what a page holds; without one a block is any that is in
use as its type. Blocks are drawn, and none belongs to two actors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spbfast.constants import PB_PAGES
from spbfast.model.state.demand_layout import StartSlots
from spbfast.observed.page_classes import PageClass
from spbfast.recordings.drawn_start import Draws

UNKNOWN = 0x0F  # byte of a page of which no page flags tell


def blocks_of_actors(
    starts: Sequence[StartSlots], held: np.ndarray, bytes_of: np.ndarray, cached: np.ndarray, draws: Draws
) -> list[tuple[StartSlots, np.ndarray]]:
    """For each actor's slots the heads of the blocks that begin in them, as many as there are.

    Parameters
    ----------
    starts : sequence of StartSlots
    held : ndarray
        int8 [pages], type that a page in use was asked for as, negative where it is none.
    bytes_of : ndarray
        uint8 [pages], as `page_bytes` makes them, or `UNKNOWN`.
    cached : ndarray
        int64 [n], pages of the page cache: free for actors that name it as holder only.
    draws : Draws
    """
    is_left = held >= 0
    is_cached = np.zeros(len(held), bool)
    is_cached[cached] = True
    out = []
    for slots in starts:
        fits = is_left & (held == slots.mt)
        if slots.holder is not None and (bytes_of != UNKNOWN).any():
            fits &= (bytes_of & 0x0F) == PageClass[slots.holder.upper()]
        if slots.holder != "page_cache":
            fits &= ~is_cached
        pages = 1 << slots.order
        heads = np.flatnonzero(fits[: len(fits) // pages * pages].reshape(-1, pages).all(axis=1)) * pages
        heads = heads[draws.chosen(min(slots.blocks, len(heads)), len(heads))] if len(heads) else heads
        is_left[(heads[:, None] + np.arange(pages)).ravel()] = False
        out.append((slots, heads))
    return out


def in_pageblocks(pages: np.ndarray) -> np.ndarray:
    """Pages pageblock by pageblock, ascending in each; pageblocks in the order in which they first come."""
    _, first, inverse = np.unique(pages // PB_PAGES, return_index=True, return_inverse=True)
    return pages[np.lexsort((pages, first[inverse]))]
