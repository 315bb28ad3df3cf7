"""Folios that are split because they have to move or go to swap, and find no place.

Owns what a split does to a block and its owner's slots. migrate.py, the workers and holders/swap.py say when.
Source: migrate_pages_batch splits a large folio whose target could not be allocated (-ENOMEM), and goes on
with its pages.

Model: of owners with a slot for every page only huge pages split. A folio of the page cache splits if its
ring has room: its first page stays in its place, the others become the youngest, as what migration puts back.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import PB_ORDER, PB_PAGES, Ev
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import hand_out
from spbfast.model.state.node import Ca
from spbfast.model.state.page_state import CODE_MOVABLE, owner_at, slot_at
from spbfast.model.state.slots import PAGED, RING, ring_slot


@inline_kernel
def has_ring_room(z, owner, nr):
    """Whether a ring has slots for `nr` more folios."""
    ends = z.slots.rings
    used = ends[2 * owner + Ca.COLD_TAIL] - ends[2 * owner + Ca.COLD_HEAD]
    # One stays free for the folio that a request is about to be for (loop/cache_rows.py).
    return used + nr < z.slots.size[owner]


@inline_kernel
def may_split(z, pfn, order):
    """Whether the movable block headed by `pfn` is a folio whose owner has slots for its pages."""
    owner = owner_at(z.page, pfn)
    how = z.slots.paged[owner]
    if how == RING:
        return order > 0 and has_ring_room(z, owner, (1 << order) - 1)
    return order == PB_ORDER and how == PAGED


@kernel
def split_huge(z, pfn):
    """A huge page becomes base pages in consecutive slots of its owner; all counts stay as they are."""
    owner = owner_at(z.page, pfn)
    slot = slot_at(z.page, pfn)
    for i in range(PB_PAGES):
        hand_out(z, pfn + i, 0, CODE_MOVABLE, owner, slot + i)


@kernel
def split_cached(z, pfn, order):
    """A folio of the page cache becomes folios of a page; the cache has as many pages as before."""
    owner = owner_at(z.page, pfn)
    hand_out(z, pfn, 0, CODE_MOVABLE, owner, slot_at(z.page, pfn))
    tail = z.slots.rings[2 * owner + Ca.COLD_TAIL]
    for i in range(1, np.int64(1) << order):
        hand_out(z, pfn + i, 0, CODE_MOVABLE, owner, ring_slot(z.slots, owner, tail + i - 1))
    z.slots.rings[2 * owner + Ca.COLD_TAIL] = tail + (1 << order) - 1


@kernel
def split_to_move(z, pfn, order):
    """Split a folio that has to move and finds no place; counted."""
    if z.slots.paged[owner_at(z.page, pfn)] == RING:
        split_cached(z, pfn, order)
        z.ev[Ev.SPLIT_CACHE] += 1
    else:
        split_huge(z, pfn)
        z.ev[Ev.SPLIT_HUGE] += 1
