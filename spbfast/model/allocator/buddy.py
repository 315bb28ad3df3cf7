"""Split and merge inside the free lists, exactly as Linux 6.19 does (docs/spec/golden.md, sections 4 and 5).

Owns which list end a freed block goes to and the retyping of merged pageblocks. Never chooses where
to allocate.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CMA, HIGHATOMIC, MAX_ORDER, PB_ORDER
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.freelist import add_to_free_list, del_from_free_list, first_block
from spbfast.model.allocator.owner import drop_owner
from spbfast.model.allocator.spb import account_pages, clear_all_content
from spbfast.model.state.page_state import is_free_of_order, state_at


@inline_kernel
def expand(z, pfn, high, low, mt):
    """Give back the upper halves of an unlinked block of order `high` down to order `low`."""
    order = high
    while order > low:
        order -= 1
        add_to_free_list(z, pfn + (1 << order), order, mt, False)


@inline_kernel
def take_block(z, pfn, high, low, mt):
    """Unlink a block of list (high, mt), keep its lowest 2**low pages; the rest stays of type mt."""
    del_from_free_list(z, pfn, high, mt)
    expand(z, pfn, high, low, mt)
    account_pages(z, pfn, -(1 << low))
    return pfn


@inline_kernel
def take_first(z, set_, high, low, mt):
    """`take_block` on the head of a list that is not empty."""
    return take_block(z, first_block(z, set_, high, mt), high, low, mt)


@inline_kernel
def is_free_buddy(z, pfn, order):
    """Whether `pfn` heads a free block of exactly `order`; holes never do."""
    return is_free_of_order(state_at(z.page, pfn), order)


@inline_kernel
def is_merge_likely(z, pfn, order):
    """Whether the would-be parent's buddy is free, so that a merge is near (buddy_merge_likely)."""
    if order > MAX_ORDER - 2:
        return False
    parent = pfn & ~(1 << order)
    return parent >= z.geo.lo and is_free_buddy(z, parent ^ (1 << (order + 1)), order + 1)


@inline_kernel
def may_merge_types(mt, other):
    """Whether two pageblocks of these types may join in one block."""
    return mt == other or (mt != HIGHATOMIC and mt != CMA and other != HIGHATOMIC and other != CMA)


@kernel
def merge_pageblock(z, pfn, mt):
    """Join a free order-9 block, not on any list, with its buddy where types allow; (pfn, order)."""
    buddy = pfn ^ (1 << PB_ORDER)
    if is_free_buddy(z, buddy, PB_ORDER):
        other = np.int64(z.pb.label[buddy >> PB_ORDER])
        if may_merge_types(mt, other):
            del_from_free_list(z, buddy, PB_ORDER, other)
            z.pb.label[buddy >> PB_ORDER] = mt  # the block being freed wins
            return min(pfn, buddy), MAX_ORDER
    return pfn, PB_ORDER


@inline_kernel
def free_one_page(z, pfn, order, to_tail):
    """Merge a block of order at most 9 into the free lists (__free_one_page).

    The type is the current one of its pageblock. A pageblock that becomes wholly free drops its
    content bits and its owner; neighbours that merge in were free already.
    """
    pb = pfn >> PB_ORDER
    mt = np.int64(z.pb.label[pb])
    account_pages(z, pfn, 1 << order)
    while order < PB_ORDER:
        buddy = pfn ^ (1 << order)
        if not is_free_buddy(z, buddy, order):
            break
        del_from_free_list(z, buddy, order, mt)
        pfn = min(pfn, buddy)
        order += 1
    if order < PB_ORDER:
        add_to_free_list(z, pfn, order, mt, to_tail or is_merge_likely(z, pfn, order))
        return
    clear_all_content(z, pb)
    if z.pb.owner[pb]:
        drop_owner(z, pb)
    pfn, order = merge_pageblock(z, pfn, mt)
    add_to_free_list(z, pfn, order, mt, to_tail)


@kernel
def free_piece(z, pfn, order, to_tail):
    """`free_one_page` where the call costs less than its inlined body."""
    free_one_page(z, pfn, order, to_tail)


@kernel
def free_pieces(z, pfn, order, to_tail):
    """Free a block of any order to the lists: order 10 as two pieces, the low one first."""
    if order <= PB_ORDER:
        free_piece(z, pfn, order, to_tail)
        return
    free_piece(z, pfn, PB_ORDER, to_tail)
    free_piece(z, pfn + (1 << PB_ORDER), PB_ORDER, to_tail)
