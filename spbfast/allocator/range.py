"""Ranges of order-0 pages as one event: the same lists as page by page, in a fraction of the time.

Owns runs of consecutive slots of one owner. Taking: while a request is served from a superpageblock's
fragments, the smallest non-empty order has nothing below it, so requests one by one would hand out its
head block page by page, ascending, before they look at any other; the block is taken at once. Everything
else (whole pageblocks, the rungs beyond, failures) goes one by one through rmqueue. Freeing: ascending
pages of an aligned block only merge with each other until the last one, so the block is freed at once.
tests/test_range.py holds both equal to single events. Per-CPU lists are not used.
"""

from __future__ import annotations

import numpy as np

from spbfast._jit import bit_length, ctz, inline_kernel, kernel
from spbfast.allocator.buddy import free_piece
from spbfast.allocator.claim import code_of
from spbfast.allocator.free import free_held, hand_out, mt_of_code, note_gone
from spbfast.allocator.freelist import add_to_free_list, del_from_free_list, first_block
from spbfast.allocator.pick import mask_of
from spbfast.allocator.request import queue_high_water, rmqueue_in_mode
from spbfast.allocator.rmqueue import find_preferred, remember_preferred
from spbfast.allocator.settle import settle
from spbfast.allocator.spb import account_pages, del_used, set_content
from spbfast.constants import (
    ALLOC_CMA,
    CLEAN,
    CODE_PINNED,
    MODE_NORMAL,
    MOVABLE,
    ORDER_NIBBLE,
    PB_ORDER,
    STATE_TAIL,
    TAINTED,
    Ev,
    Outcome,
    P,
)
from spbfast.state.trace import Th

TAKE_PREFERRED = int(Outcome.TAKE_PREFERRED)
FRAGMENT_ORDERS = (1 << PB_ORDER) - 1


@inline_kernel
def find_fragments(z, policy, mt, flags):
    """List set whose fragments serve the next order-0 requests of type mt, or -1 if one by one must."""
    if z.trace.head[Th.ON]:
        return np.int64(-1)  # each page is a request of its own, with its own record
    if z.geo.set_mask == 0:
        alone = flags & ALLOC_CMA or mask_of(z, 0, mt) & FRAGMENT_ORDERS == 0
        return np.int64(-1) if alone else np.int64(0)
    spb, whole_first = find_preferred(z, policy, 0, mt, CLEAN if mt == MOVABLE else TAINTED)
    if spb < 0:
        return np.int64(-1)
    mask = mask_of(z, spb, mt)
    if mask & FRAGMENT_ORDERS == 0 or (whole_first and mask > FRAGMENT_ORDERS):
        return np.int64(-1)
    remember_preferred(z, policy, 0, mt, spb)
    return spb


@inline_kernel
def split_rest(z, pfn, nr, order, mt):
    """Give back what `nr` requests left of a block of 2**order pages: largest aligned blocks, ascending."""
    rest = pfn + nr
    end = pfn + (1 << order)
    while rest < end:
        part = ctz(rest)
        add_to_free_list(z, rest, part, mt, False)
        rest += 1 << part


@kernel
def take_fragment(z, policy, set_, mt, most):
    """Take up to `most` pages from the head of a set's smallest non-empty list; (first page, number)."""
    order = ctz(mask_of(z, set_, mt))
    pfn = first_block(z, set_, order, mt)
    nr = min(most, 1 << order)
    pb = pfn >> PB_ORDER
    del_from_free_list(z, pfn, order, mt)
    split_rest(z, pfn, nr, order, mt)
    account_pages(z, pfn, -nr)
    z.pb.used[pb, mt] += nr
    set_content(z, pb, mt)
    settle(z, policy, pfn)
    z.ev[Ev.OUTCOME] = TAKE_PREFERRED
    # Free pages only fall while a block is taken: what its last page asks for holds all that others would.
    if mt != MOVABLE and z.geo.set_mask != 0:
        queue_high_water(z, policy, pfn)
    return pfn, nr


@kernel
def hand_out_run(z, pfn, nr, code, owner, slot):
    """`hand_out` for consecutive order-0 pages and slots."""
    at = z.slots.base[owner] + slot
    if code == CODE_PINNED:
        z.spb.pinned[pfn >> z.geo.spb_shift] += nr
    for i in range(nr):
        z.page.state[pfn + i] = code << 4
        z.page.next[pfn + i] = -(owner + 1)
        z.page.prev[pfn + i] = slot + i
        z.slots.pfn[at + i] = pfn + i


@kernel
def alloc_range(z, policy, owner, slot, nr, mt, code, flags):
    """Up to `nr` order-0 requests into consecutive empty slots; how many were served before one failed.

    `code` is that of the blocks handed out (constants.py). The caller counts watermarks before it.
    """
    done = np.int64(0)
    while done < nr:
        visited = z.ev[Ev.VISITED]
        set_ = find_fragments(z, policy, mt, flags)
        visited = z.ev[Ev.VISITED] - visited
        if set_ >= 0:
            pfn, taken = take_fragment(z, policy, set_, mt, nr - done)
            if not policy[P.preferred_hint]:
                z.ev[Ev.VISITED] += visited * (taken - 1)
            hand_out_run(z, pfn, taken, code, owner, slot + done)
            done += taken
            continue
        z.ev[Ev.VISITED] -= visited
        pfn = rmqueue_in_mode(z, policy, 0, mt, flags, MODE_NORMAL)
        if pfn < 0:
            return done
        hand_out(z, pfn, 0, code, owner, slot + done)
        done += 1
    return done


@kernel
def nr_in_run(z, at, end, pfn, state):
    """Slots from `at` on that hold the pages from `pfn` on, ascending, all with the same state."""
    nr = 1
    while at + nr < end and z.slots.pfn[at + nr] == pfn + nr and z.page.state[pfn + nr] == state:
        nr += 1
    return nr


@kernel
def free_run(z, policy, pfn, nr, code):
    """Free `nr` consecutive order-0 pages of one code, as maximal aligned blocks, ascending."""
    end = pfn + nr
    mt = mt_of_code(code)
    while pfn < end:
        order = min(ctz(pfn | (1 << PB_ORDER)), bit_length(end - pfn) - 1)
        for i in range(pfn, pfn + (1 << order)):
            z.page.state[i] = STATE_TAIL
        note_gone(z, pfn, order, code)
        del_used(z, policy, pfn, order, mt)
        free_piece(z, pfn, order, False)
        settle(z, policy, pfn)
        pfn += 1 << order


@kernel
def free_range(z, policy, owner, slot, nr):
    """Free whatever blocks are in `nr` consecutive slots and empty them; number of blocks freed."""
    at = z.slots.base[owner] + slot
    end = at + nr
    freed = np.int64(0)
    while at < end:
        pfn = np.int64(z.slots.pfn[at])
        run = 1
        if pfn >= 0:
            state = np.int64(z.page.state[pfn])
            if state & ORDER_NIBBLE:
                free_held(z, policy, pfn)
            else:
                run = nr_in_run(z, at, end, pfn, state)
                free_run(z, policy, pfn, run, code_of(state))
            freed += run
        for i in range(at, at + run):
            z.slots.pfn[i] = -1
        at += run
    return freed
