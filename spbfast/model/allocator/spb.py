"""The only writer of per-superpageblock counters, category lists, content bits and the serving index.

Callers tell it what happened to blocks; it keeps counts, and marks the event dirty (`Ev.DIRTY`) when a
count behind some category or bucket changed. `settle.py` then moves the superpageblock, once a step.
Lists are slot arrays: a slot's number is its place in list order, gaps are skipped by bit scans, and
`compact_list` renumbers when the slots run out.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLEAN,
    EMPTY,
    HIGHATOMIC,
    ISOLATED,
    LIST_CLEAN,
    LIST_EMPTY,
    LIST_ISOLATED,
    LIST_TAINTED,
    MOVABLE,
    NR_MT,
    NR_REQUEST_MT,
    PB_ORDER,
    PB_PAGES,
    RECLAIMABLE,
    TAINTED,
    UNMOVABLE,
    C,
    Ev,
    P,
)
from spbfast.jit.decorators import bit_length, inline_kernel, kernel
from spbfast.model.allocator.pick import is_live
from spbfast.model.allocator.record import trace_taint
from spbfast.model.primitives.bits import bit_of, word_of
from spbfast.model.state.trace import TALLY_TAINT_RECYCLE, TALLY_UNTAINT, Cause


@inline_kernel
def category_of_list(lst):
    """Category that a superpageblock list belongs to."""
    if lst == LIST_EMPTY:
        return EMPTY
    if lst == LIST_ISOLATED:
        return ISOLATED
    return CLEAN if lst < LIST_TAINTED else TAINTED


@inline_kernel
def rate_reserve(policy, total):
    """Pageblocks that movable requests leave alone in a tainted superpageblock of `total` pageblocks."""
    if policy[P.reserve_shift] < 0:
        return policy[P.reserve_floor]
    return max(policy[P.reserve_floor], total >> policy[P.reserve_shift])


@inline_kernel
def rate_bucket(nr_free_pb, total):
    """Fullness bucket of a CLEAN or TAINTED superpageblock, 0 = full."""
    if nr_free_pb == 0:
        return 0
    if 4 * nr_free_pb <= total:
        return 1
    if 2 * nr_free_pb <= total:
        return 2
    return 3 if 4 * nr_free_pb <= 3 * total else 4


@inline_kernel
def rate_list(z, spb):
    """List on which the superpageblock belongs by its counters (isolation aside).

    Model: a pageblock of the HIGHATOMIC reserve taints, even while it is free.
    """
    nr_free_pb = np.int64(z.spb.nr_free_pb[spb])
    total = np.int64(z.spb.total[spb])
    reserved = z.spb.content[spb, HIGHATOMIC]
    if nr_free_pb == total and reserved == 0:
        return LIST_EMPTY
    tainting = z.spb.content[spb, UNMOVABLE] + z.spb.content[spb, RECLAIMABLE] + reserved
    return rate_bucket(nr_free_pb, total) + (LIST_TAINTED if tainting > 0 else LIST_CLEAN)


@kernel
def flip_fit(z, spb, mt, low, high):
    """A superpageblock began or ceased to serve orders low..high-1 of one type: flip its bits."""
    lst = np.int64(z.spb.list[spb])
    slot = np.int64(z.spb.slot[spb])
    word = word_of(slot)
    bit = bit_of(slot)
    for order in range(low, high):
        z.index.fit[lst, mt, order, word] ^= bit


@inline_kernel
def note_mask(z, set_, mt, old, new):
    """The set of orders with free blocks of a type changed in superpageblock `set_`: keep its index."""
    if z.geo.set_mask == 0 or mt >= NR_REQUEST_MT:
        return
    before = bit_length(old)
    after = bit_length(new)
    # A superpageblock serves every order up to its largest block's.
    if before != after:
        flip_fit(z, set_, mt, min(before, after), max(before, after))


@inline_kernel
def account_pages(z, pfn, pages):
    """`pages` more (or fewer) free pages at `pfn`."""
    z.spb.nr_free_pages[pfn >> z.geo.spb_shift] += pages
    z.count[C.FREE_PAGES] += pages


@inline_kernel
def account_free_pb(z, pfn, nr_pb):
    """`nr_pb` more (or fewer) wholly free pageblocks at `pfn`."""
    z.spb.nr_free_pb[pfn >> z.geo.spb_shift] += nr_pb
    z.ev[Ev.DIRTY] = 1


@kernel
def add_content(z, pb, mt, is_set):
    """Flip a pageblock's content bit: its superpageblock has one more pageblock with it, or one fewer."""
    z.pb.bits[pb] ^= 1 << mt
    spb = pb >> (z.geo.spb_shift - PB_ORDER)
    z.spb.content[spb, mt] += 1 if is_set else -1
    z.ev[Ev.DIRTY] = 1
    trace_taint(z, pb, mt, is_set, np.int64(z.spb.content[spb, mt]))


@inline_kernel
def set_content(z, pb, mt):
    """A page asked for as `mt` was handed out in the pageblock, or (HIGHATOMIC) it joins the reserve."""
    bit = 1 << mt
    if not z.pb.bits[pb] & bit:
        add_content(z, pb, mt, 1)


@inline_kernel
def clear_content(z, pb, mt):
    """No page asked for as `mt` is left there, as far as anyone knows; HIGHATOMIC: it left the reserve."""
    bit = 1 << mt
    if z.pb.bits[pb] & bit:
        add_content(z, pb, mt, 0)


@inline_kernel
def clear_all_content(z, pb):
    """The pageblock became wholly free."""
    if z.pb.bits[pb]:
        for mt in range(NR_REQUEST_MT):
            clear_content(z, pb, mt)


@inline_kernel
def add_used(z, pfn, order, mt):
    """A block asked for as `mt` left the free lists: count its pages, set its content bits."""
    pb = pfn >> PB_ORDER
    if order <= PB_ORDER:
        z.pb.used[pb, mt] += 1 << order
        set_content(z, pb, mt)
        return
    for i in range(pb, pb + (1 << (order - PB_ORDER))):
        z.pb.used[i, mt] += PB_PAGES
        set_content(z, i, mt)


@inline_kernel
def del_used(z, policy, pfn, order, mt):
    """A block that was asked for as `mt` is about to return to the free lists (order at most 9)."""
    pb = pfn >> PB_ORDER
    z.pb.used[pb, mt] -= 1 << order
    if not policy[P.sticky_content] and z.pb.used[pb, mt] == 0:
        clear_content(z, pb, mt)


@kernel
def flip_fit_all(z, spb):
    """Put a superpageblock's whole availability into the index of its list, or take it out."""
    if z.geo.set_mask == 0:
        return
    for mt in range(NR_REQUEST_MT):
        flip_fit(z, spb, mt, 0, bit_length(z.area.mask[spb * NR_MT + mt]))


@kernel
def del_from_spb_list(z, spb):
    """Unlink a superpageblock from its category list."""
    lst = np.int64(z.spb.list[spb])
    slot = np.int64(z.spb.slot[spb])
    flip_fit_all(z, spb)
    z.index.live[lst, word_of(slot)] &= ~bit_of(slot)
    z.index.len[lst] -= 1


@kernel
def compact_list(z, lst):
    """Renumber a list's slots from 0 without gaps, keeping their order."""
    nr = 0
    for slot in range(z.index.tail[lst]):
        if not is_live(z.index, lst, slot):
            continue
        spb = np.int64(z.index.spb[lst, slot])
        flip_fit_all(z, spb)
        z.index.live[lst, word_of(slot)] &= ~bit_of(slot)
        z.index.live[lst, word_of(nr)] |= bit_of(nr)
        z.index.spb[lst, nr] = spb
        z.spb.slot[spb] = nr
        flip_fit_all(z, spb)
        nr += 1
    z.index.tail[lst] = nr


@kernel
def add_to_spb_list_tail(z, spb, lst):
    """Link a superpageblock at the tail of a category list."""
    if z.index.tail[lst] == z.index.spb.shape[1]:
        compact_list(z, lst)
    slot = np.int64(z.index.tail[lst])
    z.index.spb[lst, slot] = spb
    z.index.live[lst, word_of(slot)] |= bit_of(slot)
    z.index.tail[lst] = slot + 1
    z.index.len[lst] += 1
    z.spb.list[spb] = lst
    z.spb.slot[spb] = slot
    flip_fit_all(z, spb)


@inline_kernel
def count_category(z, category, change):
    """Keep the zone's number of superpageblocks by category."""
    if category == TAINTED:
        z.count[C.TAINTED_SPBS] += change
    elif category == CLEAN:
        z.count[C.CLEAN_SPBS] += change
    elif category == EMPTY:
        z.count[C.EMPTY_SPBS] += change
    else:
        z.count[C.ISOLATED_SPBS] += change


@kernel
def move_spb(z, spb, lst):
    """Move a superpageblock to the tail of another list and count taints and un-taints."""
    old = category_of_list(z.spb.list[spb])
    new = category_of_list(lst)
    del_from_spb_list(z, spb)
    add_to_spb_list_tail(z, spb, lst)
    if old == new:
        return
    z.index.in_category[old, word_of(spb)] ^= bit_of(spb)
    z.index.in_category[new, word_of(spb)] ^= bit_of(spb)
    count_category(z, old, -1)
    count_category(z, new, 1)
    if new == TAINTED:
        z.count[C.TAINTS] += 1
        z.ev[Ev.NR_TAINTS] += 1
        z.ev[Ev.TAINT_OUTCOME] = z.ev[Ev.OUTCOME]
        if z.ev[Ev.CAUSE] == Cause.PCP_RECYCLE:
            z.tally[TALLY_TAINT_RECYCLE] += 1
    elif old == TAINTED:
        z.count[C.UNTAINTS] += 1
        z.tally[TALLY_UNTAINT + z.ev[Ev.CAUSE]] += 1


@inline_kernel
def needs_defrag(z, policy, spb):
    """Whether a superpageblock is tainted, holds movable content and is short of free pageblocks."""
    if category_of_list(z.spb.list[spb]) != TAINTED or z.spb.content[spb, MOVABLE] == 0:
        return False
    if policy[P.defrag_start_at_reserve]:
        return z.spb.nr_free_pb[spb] < rate_reserve(policy, np.int64(z.spb.total[spb]))
    return z.spb.nr_free_pb[spb] <= 1 or z.spb.nr_free_pages[spb] < 2 * PB_PAGES


@inline_kernel
def queue_defrag(z, spb, req):
    """Record that an event asks to defragment a superpageblock."""
    z.ev[Ev.REQUESTS] |= req
    if z.spb.defrag_mark[spb] != z.ev[Ev.SEQ]:
        z.spb.defrag_mark[spb] = z.ev[Ev.SEQ]
        z.ev[Ev.NR_DEFRAG] += 1
