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
from spbfast.model.state.page_state import (
    free_state,
    next_of,
    prev_of,
    put_next,
    put_prev,
    set_record,
    set_tail,
)


@inline_kernel
def link_after(page, pfn, at, state):
    """Insert `pfn` behind link `at`, in the state that all blocks of the list are in."""
    after = next_of(page, at)
    set_record(page, pfn, state, after, at)
    put_prev(page, after, pfn, state)
    put_next(page, at, pfn, state)


@inline_kernel
def unlink(page, pfn, state):
    """Take `pfn` out of a list on which all blocks are in this state; it heads nothing any more."""
    after = next_of(page, pfn)
    before = prev_of(page, pfn)
    put_next(page, before, after, state)
    put_prev(page, after, before, state)
    set_tail(page, pfn)


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
    link_after(z.page, pfn, prev_of(z.page, head) if to_tail else head, free_state(order, mt))
    count_block(z, set_, order, mt, lst)
    if order >= PB_ORDER:
        account_free_pb(z, pfn, 1 << (order - PB_ORDER))
    if mt >= HIGHATOMIC:
        z.count[C.FREE_CMA if mt == CMA else C.FREE_HIGHATOMIC] += 1 << order


@inline_kernel
def del_from_free_list(z, pfn, order, mt):
    """Unlink the free block headed by `pfn`; it is on list (order, mt). Its head becomes a tail."""
    set_ = set_of(z.geo, pfn)
    unlink(z.page, pfn, free_state(order, mt))
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
    pfn = next_of(z.page, z.geo.list0 + list_of(set_, order, mt))
    prefetch(z.page.word, next_of(z.page, pfn))
    return pfn


@inline_kernel
def cut_first(z, set_, order, mt, after, nr):
    """Unlink the first `nr` blocks of a list below a pageblock's order; `after` is the link behind them.

    Their own links and states stay.
    """
    lst = list_of(set_, order, mt)
    head = z.geo.list0 + lst
    state = free_state(order, mt)
    put_next(z.page, head, after, state)
    put_prev(z.page, after, head, state)
    uncount_blocks(z, set_, order, mt, lst, nr)


@inline_kernel
def move_to_front(page, head, pfn, state):
    """Turn a list round until `pfn` is its first block; all its blocks are in this state."""
    first = next_of(page, head)
    if first == pfn:
        return
    last = prev_of(page, head)
    put_next(page, last, first, state)
    put_prev(page, first, last, state)
    before = prev_of(page, pfn)
    put_next(page, before, head, state)
    put_prev(page, head, before, state)
    put_next(page, head, pfn, state)
    put_prev(page, pfn, head, state)


@inline_kernel
def has_block(z, set_, order, mt):
    """Whether list (order, mt) of a set holds a block."""
    return (z.area.mask[set_ * NR_MT + mt] >> order) & 1
