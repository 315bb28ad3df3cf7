"""The only writer of free lists: link, unlink, and the lengths and masks that follow from it.

Every list is circular through its head, so links are written unconditionally. Accounting of free
pages is left to the code that moves pages in or out of the lists as a whole (buddy.py): splits and merges
conserve them.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CMA, HIGHATOMIC, NR_MT, PB_ORDER, C
from spbfast.jit.decorators import inline_kernel, prefetch
from spbfast.model.allocator.pfn import list_of, set_of
from spbfast.model.allocator.spb import account_free_pb, note_mask
from spbfast.model.state.page_state import free_state, set_head, set_tail


@inline_kernel
def link_after(page, pfn, at):
    """Insert `pfn` behind link `at`."""
    after = np.int64(page.next[at])
    page.next[pfn] = after
    page.prev[pfn] = at
    page.prev[after] = pfn
    page.next[at] = pfn


@inline_kernel
def unlink(page, pfn):
    """Take `pfn` out of the list it is on."""
    after = np.int64(page.next[pfn])
    before = np.int64(page.prev[pfn])
    page.next[before] = after
    page.prev[after] = before


@inline_kernel
def count_block(z, set_, order, mt, lst):
    """One block more on a list."""
    nr = z.area.nr[lst] + 1
    z.area.nr[lst] = nr
    if nr == 1:
        old = np.int64(z.area.mask[set_ * NR_MT + mt])
        new = old | (1 << order)
        z.area.mask[set_ * NR_MT + mt] = new
        note_mask(z, set_, mt, old, new)


@inline_kernel
def uncount_blocks(z, set_, order, mt, lst, fewer):
    """`fewer` blocks fewer on a list."""
    nr = z.area.nr[lst] - fewer
    z.area.nr[lst] = nr
    if nr == 0:
        old = np.int64(z.area.mask[set_ * NR_MT + mt])
        new = old & ~(1 << order)
        z.area.mask[set_ * NR_MT + mt] = new
        note_mask(z, set_, mt, old, new)


@inline_kernel
def add_to_free_list(z, pfn, order, mt, to_tail):
    """Put a free block on the list (order, mt) of its set, at the head or the tail."""
    set_ = set_of(z.geo, pfn)
    lst = list_of(set_, order, mt)
    head = z.geo.list0 + lst
    link_after(z.page, pfn, np.int64(z.page.prev[head]) if to_tail else head)
    set_head(z.page, pfn, free_state(order, mt))
    count_block(z, set_, order, mt, lst)
    if order >= PB_ORDER:
        account_free_pb(z, pfn, 1 << (order - PB_ORDER))
    if mt >= HIGHATOMIC:
        z.count[C.FREE_CMA if mt == CMA else C.FREE_HIGHATOMIC] += 1 << order


@inline_kernel
def del_from_free_list(z, pfn, order, mt):
    """Unlink the free block headed by `pfn`; it is on list (order, mt). Its head becomes a tail."""
    set_ = set_of(z.geo, pfn)
    unlink(z.page, pfn)
    set_tail(z.page, pfn)
    uncount_blocks(z, set_, order, mt, list_of(set_, order, mt), 1)
    if order >= PB_ORDER:
        account_free_pb(z, pfn, -(1 << (order - PB_ORDER)))
    if mt >= HIGHATOMIC:
        z.count[C.FREE_CMA if mt == CMA else C.FREE_HIGHATOMIC] -= 1 << order


@inline_kernel
def first_block(z, set_, order, mt):
    """Head block of a list that is not empty.

    The caller takes it and the next request takes the block behind it. A list reveals its order one link at
    a time, so only now can that block be prefetched.
    """
    pfn = np.int64(z.page.next[z.geo.list0 + list_of(set_, order, mt)])
    prefetch(z.page.next, np.int64(z.page.next[pfn]))
    return pfn


@inline_kernel
def cut_first(z, set_, order, mt, last, nr):
    """Unlink the first `nr` blocks of a list below a pageblock's order; `last` is the last of them.

    Their links with each other stay, and so do their states.
    """
    lst = list_of(set_, order, mt)
    head = z.geo.list0 + lst
    after = np.int64(z.page.next[last])
    z.page.next[head] = after
    z.page.prev[after] = head
    uncount_blocks(z, set_, order, mt, lst, nr)


@inline_kernel
def has_block(z, set_, order, mt):
    """Whether list (order, mt) of a set holds a block."""
    return (z.area.mask[set_ * NR_MT + mt] >> order) & 1
