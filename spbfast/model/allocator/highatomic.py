"""The HIGHATOMIC reserve: pageblocks kept for callers that cannot block and need more than one page.

Owns taking from it, adding a pageblock to it and giving one back (reserve_highatomic_pageblock,
unreserve_highatomic_pageblock). A reserved pageblock is labelled HIGHATOMIC, and its content bit of that
number makes its superpageblock tainted. requests/attempt.py decides who may use it.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    HIGHATOMIC,
    LIST_TAINTED,
    NR_BUCKETS,
    NR_ORDERS,
    NR_REQUEST_MT,
    PB_ORDER,
    PB_PAGES,
    C,
    Ev,
    Outcome,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.buddy import merge_pageblock
from spbfast.model.allocator.claim import move_free_blocks
from spbfast.model.allocator.freelist import add_to_free_list, del_from_free_list, first_block, has_block
from spbfast.model.allocator.ladder import take_own
from spbfast.model.allocator.mainline import take_smallest
from spbfast.model.allocator.pick import is_live, order_mask
from spbfast.model.allocator.resting import release_pageblock
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used, clear_content, set_content


@inline_kernel
def most_reserved(z):
    """Pages that the reserve may hold: 1 % of the zone rounded up to pageblocks, none in small zones."""
    share = z.geo.nr_managed // 100
    return 0 if share < PB_PAGES else (share + PB_PAGES - 1) // PB_PAGES * PB_PAGES


@kernel
def find_reserved(z, orders):
    """First tainted superpageblock, fullest first, with a reserved free block of these orders, or -1."""
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        for slot in range(z.index.tail[lst]):
            if is_live(z.index, lst, slot):
                spb = np.int64(z.index.spb[lst, slot])
                if order_mask(z, spb, HIGHATOMIC) & orders:
                    return spb
    return np.int64(-1)


@kernel
def take_highatomic(z, policy, order, mt):
    """Take a block of the reserve for a request of type mt, or -1; the rest stays reserved.

    Model: with superpageblocks only own lists are looked at, in the order of the rung take_preferred;
    the reserve never grows by a claim.
    """
    if z.count[C.FREE_HIGHATOMIC] < 1 << order:
        return np.int64(-1)
    if z.geo.set_mask == 0:
        pfn = np.int64(take_smallest(z, order, HIGHATOMIC))
    else:
        spb = find_reserved(z, np.int64(-1) << order)
        if spb < 0:
            return np.int64(-1)
        pfn = take_own(z, spb, order, HIGHATOMIC, policy[P.whole_pageblock_first] != 0)
    if pfn >= 0:
        z.ev[Ev.OUTCOME] = Outcome.TAKE_HIGHATOMIC
        add_used(z, pfn, order, mt)
        settle(z, policy, pfn)
    return pfn


@kernel
def reserve_highatomic(z, policy, pfn, order):
    """Add the pageblock of a block just taken to the reserve, if there is room; 1 if it was."""
    if z.count[C.RESERVED_HIGHATOMIC] >= most_reserved(z):
        return 0
    pb = pfn >> PB_ORDER
    label = np.int64(z.pb.label[pb])
    if label >= NR_REQUEST_MT:
        return 0
    nr_pb = 1
    if order < PB_ORDER:
        if (pb << PB_ORDER) < z.geo.lo or ((pb + 1) << PB_ORDER) > z.geo.hi:
            return 0
        if policy[P.pcp_owned_pageblocks] and z.pb.owner[pb]:
            release_pageblock(z, policy, pb)
        move_free_blocks(z, pb, label, HIGHATOMIC)
    else:
        nr_pb = 1 << (order - PB_ORDER)
    for i in range(pb, pb + nr_pb):
        z.pb.label[i] = HIGHATOMIC
        set_content(z, i, HIGHATOMIC)
    z.count[C.RESERVED_HIGHATOMIC] += nr_pb * PB_PAGES
    settle(z, policy, pfn)
    return 1


@kernel
def release_block(z, pfn, order, mt):
    """Turn the pageblocks of a reserved free block into type mt.

    Model: a whole pageblock joins its buddy as if it were freed; the kernel leaves the two apart until the
    next free there.
    """
    pb = pfn >> PB_ORDER
    if order < PB_ORDER:
        move_free_blocks(z, pb, HIGHATOMIC, mt)
        clear_content(z, pb, HIGHATOMIC)
        return
    del_from_free_list(z, pfn, order, HIGHATOMIC)
    for i in range(pb, pb + (1 << (order - PB_ORDER))):
        z.pb.label[i] = mt
        clear_content(z, i, HIGHATOMIC)
    if order == PB_ORDER:
        pfn, order = merge_pageblock(z, pfn, mt)
    add_to_free_list(z, pfn, order, mt, True)


@kernel
def unreserve_highatomic(z, policy, mt, force):
    """Give one pageblock with free pages back as type mt, the smallest free block's; its pages or 0.

    Without `force` the last pageblock is kept.
    """
    if z.count[C.FREE_HIGHATOMIC] == 0 or (not force and z.count[C.RESERVED_HIGHATOMIC] <= PB_PAGES):
        return 0
    for order in range(NR_ORDERS):
        set_ = np.int64(0)
        if z.geo.set_mask:
            set_ = find_reserved(z, np.int64(1) << order)
        if set_ < 0 or not has_block(z, set_, order, HIGHATOMIC):
            continue
        pfn = first_block(z, set_, order, HIGHATOMIC)
        release_block(z, pfn, order, mt)
        pages = max(PB_PAGES, 1 << order)
        z.count[C.RESERVED_HIGHATOMIC] -= pages
        settle(z, policy, pfn)
        return pages
    return 0
