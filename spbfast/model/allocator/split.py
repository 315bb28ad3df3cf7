"""Huge pages that are split because they have to move and find no place.

Owns what a split does to a block and its owner's slots. migrate.py and the workers say when.
Source: migrate_pages_batch splits a large folio whose target could not be allocated (-ENOMEM), and goes on
with its pages. Model: only huge pages of owners with a slot for every page split; folios of the page cache
are small, and move or stay.
"""

from __future__ import annotations

from spbfast.constants import PB_ORDER, PB_PAGES, Ev
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import hand_out
from spbfast.model.state.page_state import CODE_MOVABLE, owner_at, slot_at


@inline_kernel
def may_split(z, pfn, order):
    """Whether the movable block headed by `pfn` is a huge page whose owner has slots for its pages."""
    return order == PB_ORDER and z.slots.paged[owner_at(z.page, pfn)] != 0


@kernel
def split_huge(z, pfn):
    """A huge page becomes base pages in consecutive slots of its owner; all counts stay as they are."""
    owner = owner_at(z.page, pfn)
    slot = slot_at(z.page, pfn)
    for i in range(PB_PAGES):
        hand_out(z, pfn + i, 0, CODE_MOVABLE, owner, slot + i)
    z.ev[Ev.SPLIT_HUGE] += 1
