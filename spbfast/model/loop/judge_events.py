"""Recorded page events against mainline, page by page: which page would this machine have handed out?

Owns the verdict on every recorded allocation. The zone follows the recording whatever it does, so that one
difference does not make the next: where it disagrees it takes the recorded page all the same, and the block
that it would have handed out goes to the end of its list, as one of unknown place. What was free when
recording began lies on its list in an order that nobody knows, too; such a block is known once it has been
handed out, and only then does it count for or against the model.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MODE_NORMAL, MOVABLE, NR_REQUEST_MT, PB_ORDER, C, Ev
from spbfast.jit.decorators import ctz, entry_kernel, inline_kernel, kernel
from spbfast.model.allocator.buddy import is_free_buddy
from spbfast.model.allocator.claim import claim_whole, move_free_blocks
from spbfast.model.allocator.freelist import first_block, link_after, unlink
from spbfast.model.allocator.pfn import list_of
from spbfast.model.allocator.pick import order_mask
from spbfast.model.allocator.rmqueue import begin_event, rmqueue_in_mode
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used
from spbfast.model.loop.recorded_pages import (
    PAGE_ALLOC,
    PAGE_FREE_TO_TAIL,
    X_BULK,
    X_CLAIMED,
    X_FALLBACK,
    X_MT,
    X_OP,
    X_ORDER,
    X_PFN,
    covering_order,
    hold_pages,
    is_held_page,
    release_pages,
    take_exact,
)
from spbfast.model.state.page_state import free_mt, free_state, next_of, prev_of, state_at

# Verdicts. EQUAL and DIFFERS speak of the model, the others of what a recording cannot tell.
(
    V_NONE,  # not an allocation
    V_EQUAL,
    V_START,  # of a list, or of a pageblock, whose order or type nobody knows: since the start, or any more
    V_DIFFERS,
    V_UNTRACED,  # the page was not free here: it was freed by something that leaves no event
) = range(5)
NR_VERDICTS = 5
# Why a free block's place in its list is not known; 0 where it is.
PLACE_OF_START, PLACE_FORGOTTEN = 1, 2
# Columns of a result row.
Y_VERDICT, Y_PFN, Y_HIGH, Y_OWN_HIGH = range(4)
NR_JUDGE_FIELDS = 4
# What else is counted.
J_TAKEN_UNSEEN, J_RELABELLED, J_FREED_UNHELD = range(3)
NR_JUDGE_COUNTS = 3


@inline_kernel
def is_order_known(z, start, head, lst):
    """Whether a list's first block is known to be the first: not from the start, or the last such."""
    if not start[head]:
        return True
    after = next_of(z.page, head)
    return after == z.geo.list0 + lst or not start[after]


@kernel
def learn_first(z, start, head, order, mt):
    """Let a block of unknown place be the first of its list, if the first is of unknown place, too.

    Returns 1 if the place of the first was not known.
    """
    lst = list_of(0, order, mt)
    first = first_block(z, 0, order, mt)
    if not start[head] or not start[first] or is_order_known(z, start, first, lst):
        return 0
    if first != head:
        unlink(z.page, head, free_state(order, mt))
        link_after(z.page, head, z.geo.list0 + lst, free_state(order, mt))
    return 1


@inline_kernel
def smallest_of(z, order, mt):
    """Order of the smallest free block of a type that is big enough, or -1."""
    if mt >= NR_REQUEST_MT:
        return -1
    orders = order_mask(z, 0, mt) >> order
    return order + ctz(orders) if orders else -1


@kernel
def learn_freed(z, start, pfn):
    """A block was freed and joined the buddies that were free: what it became has a known place.

    Its other neighbours keep theirs: a block of the start that lies where a buddy of a higher order would
    begin was not touched.
    """
    high = covering_order(z, pfn, 0)
    head = pfn >> high << high
    start[head : head + (1 << high)] = 0


@kernel
def forget_place(z, start, pfn, order, mt):
    """A block is not where the rules have it: let it be its list's last, of unknown place."""
    if is_free_buddy(z, pfn, order) and free_mt(state_at(z.page, pfn)) == mt:
        unlink(z.page, pfn, free_state(order, mt))
        last = prev_of(z.page, z.geo.list0 + list_of(0, order, mt))
        link_after(z.page, pfn, last, free_state(order, mt))
        start[pfn] = PLACE_FORGOTTEN


@kernel
def follow_unseen(z, policy, start, pfn, order):
    """Hold the pages of a block that are free here, all or some or none."""
    for i in range(pfn, pfn + (1 << order)):
        high = covering_order(z, i, 0)
        if high >= 0:
            start[i >> high << high] = 0
            take_exact(z, policy, i, 0, high, MOVABLE)
            hold_pages(z, i, 0, MOVABLE)


@kernel
def follow_label(z, start, pb, mt):
    """Give a pageblock a type that the recording showed; 1 if it had another."""
    label = np.int64(z.pb.label[pb])
    if label == mt or mt < 0:
        return 0
    move_free_blocks(z, pb, label, mt)
    start[pb << PB_ORDER : (pb + 1) << PB_ORDER] = 0
    return 1


@kernel
def follow_taken(z, policy, row, start, high):
    """Take the recorded block out of the free block of order `high` that covers it, as the kernel did.

    A claim turns the pageblock: a whole one is cut up for its new type, else its free blocks move first.
    """
    pfn, order, mt = row[X_PFN], row[X_ORDER], row[X_MT]
    head = pfn >> high << high
    of_list = free_mt(state_at(z.page, head))
    start[head] = 0
    if row[X_CLAIMED] and row[X_FALLBACK] >= 0 and of_list != mt:
        if high >= PB_ORDER and head == pfn:
            claim_whole(z, pfn, high, order, mt, of_list)
            add_used(z, pfn, order, mt)
            settle(z, policy, pfn)
            return
        follow_label(z, start, pfn >> PB_ORDER, mt)
    take_exact(z, policy, pfn, order, high, mt)


@kernel
def undo_claim(z, start, found, nr_records):
    """Give the pageblock of a page its type back, if the request that found it turned it."""
    if z.count[C.NR_RECORDS] > nr_records and z.records[nr_records, 7]:
        follow_label(z, start, found >> PB_ORDER, np.int64(z.records[nr_records, 6]))


@kernel
def judge_own_list(z, policy, row, start, high, own_high, mode, out):
    """An allocation that this machine serves from the type's own list; `high` is what the kernel took."""
    pfn, order, mt = row[X_PFN], row[X_ORDER], row[X_MT]
    head = pfn >> high << high
    of_list = free_mt(state_at(z.page, head))
    learned = 0
    if high == own_high and of_list == mt:
        learned = learn_first(z, start, head, high, mt)
    first = first_block(z, 0, own_high, mt)
    out[Y_PFN] = first
    if first == pfn:
        out[Y_VERDICT] = V_START if learned else V_EQUAL
        rmqueue_in_mode(z, policy, order, mt, 0, MODE_NORMAL)
    else:
        differs = not start[first] and start[head] != PLACE_FORGOTTEN
        out[Y_VERDICT] = V_DIFFERS if differs else V_START
        follow_taken(z, policy, row, start, high)
        if differs:
            forget_place(z, start, first, own_high, mt)
    start[head] = 0


@kernel
def judge_fallback(z, policy, row, start, high, mode, out):
    """An allocation for which this machine must fall back to another type."""
    pfn, order, mt = row[X_PFN], row[X_ORDER], row[X_MT]
    head = pfn >> high << high
    learned = learn_first(z, start, head, high, free_mt(state_at(z.page, head)))
    was_start = start[head]
    nr_records = z.count[C.NR_RECORDS]
    found = rmqueue_in_mode(z, policy, order, mt, 0, mode)
    out[Y_PFN] = found
    if found == pfn:
        out[Y_VERDICT] = V_START if learned else V_EQUAL
        start[head] = 0
        return
    out[Y_VERDICT] = V_START if was_start or (found >= 0 and start[found]) else V_DIFFERS
    if found >= 0:
        hold_pages(z, found, order, mt)
        release_pages(z, policy, found, order, False)
        undo_claim(z, start, found, nr_records)
    high = covering_order(z, pfn, order)
    if high < 0:
        follow_unseen(z, policy, start, pfn, order)
    else:
        follow_taken(z, policy, row, start, high)


@kernel
def judge_alloc(z, policy, row, start, mode, out, counts):
    """One recorded allocation: the verdict, and the recorded page taken in any case."""
    pfn, order, mt = row[X_PFN], row[X_ORDER], row[X_MT]
    label = np.int64(z.pb.label[pfn >> PB_ORDER])
    out[Y_HIGH] = covering_order(z, pfn, order)
    own_high = smallest_of(z, order, mt)
    out[Y_OWN_HIGH] = own_high
    if out[Y_HIGH] < 0:
        out[Y_VERDICT] = V_UNTRACED
        follow_unseen(z, policy, start, pfn, order)
    elif own_high >= 0 and mode == MODE_NORMAL:
        judge_own_list(z, policy, row, start, out[Y_HIGH], own_high, mode, out)
        hold_pages(z, pfn, order, mt)
    elif mt < NR_REQUEST_MT:
        judge_fallback(z, policy, row, start, out[Y_HIGH], mode, out)
        hold_pages(z, pfn, order, mt)
    else:
        out[Y_VERDICT] = V_UNTRACED  # the reserve for HIGHATOMIC is made and unmade without an event
        follow_unseen(z, policy, start, pfn, order)
    if np.int64(z.pb.label[pfn >> PB_ORDER]) != label:
        start[pfn >> PB_ORDER << PB_ORDER : ((pfn >> PB_ORDER) + 1) << PB_ORDER] = 0


@kernel
def judge_free(z, policy, row, start, counts):
    """One recorded free: the pageblock's type as recorded, then the block to the lists."""
    pfn, order = row[X_PFN], row[X_ORDER]
    for i in range(pfn, pfn + (1 << order)):
        if is_held_page(z, i):
            continue
        high = covering_order(z, i, 0)
        if high >= 0:
            counts[J_TAKEN_UNSEEN] += 1
            start[i >> high << high] = 0
            take_exact(z, policy, i, 0, high, MOVABLE)
        else:
            counts[J_FREED_UNHELD] += 1
            z.pb.used[i >> PB_ORDER, MOVABLE] += 1
        hold_pages(z, i, 0, MOVABLE)
    counts[J_RELABELLED] += follow_label(z, start, pfn >> PB_ORDER, row[X_MT])
    release_pages(z, policy, pfn, order, row[X_OP] == PAGE_FREE_TO_TAIL)
    learn_freed(z, start, pfn)


@entry_kernel
def judge_page_events(z, policy, rows, start, out, counts):
    """Follow recorded rows and give a verdict on every allocation.

    Parameters
    ----------
    z, policy
        A zone without superpageblocks and per-CPU lists, with mainline's policy.
    rows : ndarray
        int64 [n, NR_PAGE_ROW_FIELDS]; the type of a free is its pageblock's, -1 where the event has none.
    start : ndarray
        int8 [pages], PLACE_OF_START at the head of every block that is free since the start, 0 elsewhere.
    out : ndarray
        int64 [n, NR_JUDGE_FIELDS].
    counts : ndarray
        int64 [NR_JUDGE_COUNTS], added to.
    """
    for i in range(rows.shape[0]):
        mode = z.ev[Ev.MODE] if rows[i, X_BULK] else np.int64(MODE_NORMAL)
        begin_event(z, i)
        z.ev[Ev.MODE] = mode
        out[i, Y_VERDICT] = V_NONE
        out[i, Y_PFN] = -1
        if rows[i, X_OP] == PAGE_ALLOC:
            judge_alloc(z, policy, rows[i], start, mode, out[i], counts)
        else:
            judge_free(z, policy, rows[i], start, counts)
