"""Refills of a CPU that owns pageblocks, in four phases (patches v1 02, 13, 22, 28; rmqueue_bulk).

First the CPU takes back drained fragments of its own pageblocks; then it claims whole pageblocks; then it
adopts partly free ones in tainted superpageblocks; last comes the plain request with its fallbacks. A phase
runs only while the batch is short of pages or no block is large enough. resting.py owns the lists.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_NOFRAGMENT,
    CLEAN,
    LIST_TAINTED,
    MODE_NORMAL,
    MOVABLE,
    NR_BUCKETS,
    PB_ORDER,
    PB_PAGES,
    TAINTED,
    C,
    Ev,
    Outcome,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.freelist import del_from_free_list, first_block, has_block
from spbfast.model.allocator.ladder import (
    rmqueue_beyond_preferred,
    rmqueue_smallest,
    take_from_tainted,
    take_own,
    take_preferred,
)
from spbfast.model.allocator.mainline import take_smallest
from spbfast.model.allocator.owner import forget_fragments, fragment_list, note_fragments, set_owner
from spbfast.model.allocator.pick import find_fit, rank_of, walk_first_fit
from spbfast.model.allocator.resting import add_resting, count_pages, find_resting, rest_owned, unowned_state
from spbfast.model.allocator.rmqueue import is_served_in_tainted, queue_high_water, rmqueue_in_mode
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import account_pages, add_used
from spbfast.model.state.page_state import CODE_PCP, ORDER_NIBBLE, code_of, is_free_head, order_of, state_at


@inline_kernel
def is_short(z, cpu, order, mt, got, wanted):
    """Whether a refill goes on: the batch is not full, or holds nothing that serves the request."""
    return got < wanted or find_resting(z, cpu, order, mt) < 0


@inline_kernel
def account_taken(z, policy, pfn, order, mt):
    """What follows from a block taken: content, place, and what a low superpageblock asks for."""
    add_used(z, pfn, order, mt)
    settle(z, policy, pfn)
    if mt != MOVABLE and z.geo.set_mask != 0 and is_served_in_tainted(z.ev[Ev.OUTCOME]):
        queue_high_water(z, policy, pfn)


@kernel
def take_back_pageblock(z, pb, mt):
    """Move a pageblock's free blocks from the free lists to its owner's; pages moved. The caller settles."""
    got = np.int64(0)
    pfn = pb << PB_ORDER
    end = pfn + PB_PAGES
    while pfn < end:
        state = state_at(z.page, pfn)
        order = order_of(state)
        if order == ORDER_NIBBLE or code_of(state) == CODE_PCP:
            pfn += 1
            continue
        if is_free_head(state):
            del_from_free_list(z, pfn, order, mt)
            account_pages(z, pfn, -(1 << order))
            add_used(z, pfn, order, mt)
            rest_owned(z, pfn, order)
            got += 1 << order
        pfn += 1 << order
    return got


@kernel
def take_back_fragments(z, policy, cpu, mt, wanted):
    """Phase 0: fragments of own pageblocks labelled mt come back until `wanted` pages are there; pages."""
    got = np.int64(0)
    head = fragment_list(z, cpu, mt)
    while got < wanted and z.pb.next[head] != head:
        pb = np.int64(z.pb.next[head])
        forget_fragments(z, pb)
        pages = take_back_pageblock(z, pb, mt)
        settle(z, policy, pb << PB_ORDER)
        got += pages
        z.count[C.PCP_FRAGMENTS_TAKEN_BACK] += pages
    return got


@kernel
def take_within_tainted(z, policy, order, mt, flags):
    """A block for a non-movable request from the tainted pool alone, or -1; accounting not yet done."""
    pfn = take_preferred(z, policy, order, mt, TAINTED)
    if pfn < 0:
        pfn = take_from_tainted(z, policy, order, mt, flags)
    return pfn


@kernel
def take_whole_movable(z, policy, flags):
    """A movable pageblock from the fullest clean superpageblock that has a free one, else by the ladder."""
    spb, visited = walk_first_fit(z.index, CLEAN, MOVABLE, PB_ORDER)
    z.ev[Ev.VISITED] += visited
    if spb < 0:
        return rmqueue_beyond_preferred(z, policy, PB_ORDER, MOVABLE, flags)
    z.ev[Ev.OUTCOME] = Outcome.TAKE_PREFERRED
    return take_own(z, spb, PB_ORDER, MOVABLE, True)


@kernel
def take_whole(z, policy, mt, flags):
    """A whole pageblock that is or becomes labelled mt, or -1; accounting not yet done."""
    if z.geo.set_mask == 0:
        z.ev[Ev.OUTCOME] = Outcome.TAKE_PREFERRED
        return np.int64(take_smallest(z, PB_ORDER, mt))
    z.ev[Ev.SAW_FREE_PB] = 0
    z.ev[Ev.SAW_BELOW] = 0
    if mt == MOVABLE and policy[P.bulk_nofragment]:
        return take_whole_movable(z, policy, flags)
    if mt != MOVABLE and policy[P.pcp_stays_in_tainted]:
        return take_within_tainted(z, policy, PB_ORDER, mt, flags)
    return rmqueue_smallest(z, policy, PB_ORDER, mt, flags)


@kernel
def claim_pageblock(z, policy, cpu, mt, flags):
    """Phase 1: a CPU claims one whole pageblock; pages, 0 if there is none."""
    pfn = take_whole(z, policy, mt, flags)
    if pfn < 0:
        return 0
    account_taken(z, policy, pfn, PB_ORDER, mt)
    set_owner(z, pfn >> PB_ORDER, cpu, mt)
    rest_owned(z, pfn, PB_ORDER)
    z.count[C.PCP_PAGEBLOCKS_CLAIMED] += 1
    return PB_PAGES


@inline_kernel
def find_unowned_fragment(z, spb, order, mt):
    """The smallest own-type fragment that serves and whose pageblock is nobody's, or -1.

    Model: only the first block of each order is looked at.
    """
    for high in range(order, PB_ORDER):
        if has_block(z, spb, high, mt):
            pfn = first_block(z, spb, high, mt)
            if z.pb.owner[pfn >> PB_ORDER] == 0:
                return pfn
    return np.int64(-1)


@kernel
def find_adoptable(z, order, mt):
    """A fragment of at least `order` in a tainted superpageblock, fullest first, to be adopted, or -1."""
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        slot = find_fit(z.index, lst, mt, order, 0)
        while slot >= 0:
            pfn = find_unowned_fragment(z, np.int64(z.index.spb[lst, slot]), order, mt)
            if pfn >= 0:
                z.ev[Ev.VISITED] += rank_of(z.index, lst, slot) + 1
                return pfn
            slot = find_fit(z.index, lst, mt, order, slot + 1)
        z.ev[Ev.VISITED] += z.index.len[lst]
    return np.int64(-1)


@kernel
def adopt_pageblock(z, policy, cpu, order, mt):
    """Phase 2: a CPU becomes owner of a partly free pageblock and gets the block found; pages, 0 if none."""
    pfn = find_adoptable(z, order, mt)
    if pfn < 0:
        return 0
    high = order_of(state_at(z.page, pfn))
    pb = pfn >> PB_ORDER
    del_from_free_list(z, pfn, high, mt)
    account_pages(z, pfn, -(1 << high))
    z.ev[Ev.OUTCOME] = Outcome.TAKE_PREFERRED
    account_taken(z, policy, pfn, high, mt)
    set_owner(z, pb, cpu, mt)
    note_fragments(z, pb)
    rest_owned(z, pfn, high)
    z.count[C.PCP_PAGEBLOCKS_ADOPTED] += 1
    return 1 << high


@inline_kernel
def rest_plain(z, cpu, pfn, order, mt):
    """Put a block of a plain request, accounted as mt, at the end of a CPU's list."""
    count_pages(z, cpu, pfn, 1 << order)
    add_resting(z, cpu, pfn, order, mt, unowned_state(order, mt), True)


@kernel
def fill_within_tainted(z, policy, cpu, order, mt, flags, nr):
    """Up to `nr` blocks of plain requests that stay in the tainted pool; whether none was refused."""
    for _ in range(nr):
        pfn = take_within_tainted(z, policy, order, mt, flags)
        if pfn < 0:
            return False
        account_taken(z, policy, pfn, order, mt)
        rest_plain(z, cpu, pfn, order, mt)
    return True


@kernel
def fill_plainly(z, policy, cpu, order, mt, flags, nr):
    """Phase 3: up to `nr` blocks of plain requests, each with its fallbacks."""
    z.ev[Ev.MODE] = MODE_NORMAL
    if mt != MOVABLE and policy[P.pcp_stays_in_tainted] and z.geo.set_mask != 0:
        fill_within_tainted(z, policy, cpu, order, mt, flags, nr)
        if find_resting(z, cpu, order, mt) >= 0:
            return
        nr = np.int64(1)
    for _ in range(nr):
        pfn = rmqueue_in_mode(z, policy, order, mt, flags, z.ev[Ev.MODE])
        if pfn < 0:
            return
        rest_plain(z, cpu, pfn, order, mt)


@kernel
def refill_owned(z, policy, cpu, order, mt, flags, wanted):
    """Get about `wanted` pages of type mt, at least one block of `order` if there is one.

    Whole pageblocks come from the first phases alone: what a fallback steals keeps its label and can't be
    owned, so a request for one asks by itself afterwards.
    """
    if policy[P.bulk_nofragment]:
        flags |= ALLOC_NOFRAGMENT
    got = take_back_fragments(z, policy, cpu, mt, wanted)
    while is_short(z, cpu, order, mt, got, wanted):
        pages = claim_pageblock(z, policy, cpu, mt, flags)
        if pages == 0:
            break
        got += pages
    if mt != MOVABLE and policy[P.pcp_adopts_partial] and z.geo.set_mask != 0:
        while is_short(z, cpu, order, mt, got, wanted):
            pages = adopt_pageblock(z, policy, cpu, order, mt)
            if pages == 0:
                break
            got += pages
    if order < PB_ORDER and is_short(z, cpu, order, mt, got, wanted):
        fill_plainly(z, policy, cpu, order, mt, flags, max((wanted - got) >> order, 1))
