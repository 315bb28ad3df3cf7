"""Ranges of order-0 pages as one event: the same lists as page by page, in a fraction of the time.

Owns runs of consecutive slots of one owner. Taking: what fragments serve is taken at once (fragments.py);
everything else (whole pageblocks, the rungs beyond, failures) one by one through rmqueue. Freeing: aligned
blocks at once (free.py).
tests/test_range.py holds both equal to single events. Per-CPU lists are not used.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import ALLOC_CMA, CLEAN, MODE_NORMAL, MOVABLE, TAINTED, Ev, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.fragments import fragments_for, is_from_fragments, take_fragment
from spbfast.model.allocator.free import free_held, free_run, hand_out, note_gone
from spbfast.model.allocator.ladder import find_preferred, remember_preferred
from spbfast.model.allocator.rmqueue import rmqueue_in_mode
from spbfast.model.state.page_state import (
    CODE_PINNED,
    code_of,
    mt_of_code,
    order_of,
    set_tail,
    set_used,
    state_at,
    used_state,
)
from spbfast.model.state.slots import block_in, put_block
from spbfast.model.state.trace import Th


@inline_kernel
def find_fragments(z, policy, mt, flags):
    """List set whose fragments serve the next order-0 requests of type mt, or -1 if one by one must."""
    if z.trace.head[Th.ON]:
        return np.int64(-1)  # each page is a request of its own, with its own record
    if z.geo.set_mask == 0:
        alone = flags & ALLOC_CMA or fragments_for(z, 0, 0, mt) == 0
        return np.int64(-1) if alone else np.int64(0)
    spb, whole_first = find_preferred(z, policy, 0, mt, CLEAN if mt == MOVABLE else TAINTED)
    if spb < 0 or not is_from_fragments(z, spb, 0, mt, whole_first):
        return np.int64(-1)
    remember_preferred(z, policy, 0, mt, spb)
    return spb


@kernel
def hand_out_run(z, pfn, nr, code, owner, slot):
    """`hand_out` for consecutive order-0 pages and slots."""
    at = z.slots.base[owner] + slot
    if code == CODE_PINNED:
        z.spb.pinned[pfn >> z.geo.spb_shift] += nr
    for i in range(nr):
        set_used(z.page, pfn + i, used_state(code, 0), owner, slot + i)
        put_block(z.slots, at + i, pfn + i)


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
            pfn, taken = take_fragment(z, policy, set_, 0, mt, nr - done)
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
    while at + nr < end and block_in(z.slots, at + nr) == pfn + nr and state_at(z.page, pfn + nr) == state:
        nr += 1
    return nr


@kernel
def free_pages(z, policy, pfn, nr, code):
    """Free `nr` consecutive order-0 pages of one code."""
    for i in range(pfn, pfn + nr):
        set_tail(z.page, i)
        note_gone(z, i, 0, code)
    free_run(z, policy, pfn, pfn + nr, mt_of_code(code))


@kernel
def free_range(z, policy, owner, slot, nr):
    """Free whatever blocks are in `nr` consecutive slots and empty them; number of blocks freed."""
    at = z.slots.base[owner] + slot
    end = at + nr
    freed = np.int64(0)
    while at < end:
        pfn = block_in(z.slots, at)
        run = 1
        if pfn >= 0:
            state = state_at(z.page, pfn)
            if order_of(state):
                free_held(z, policy, pfn)
            else:
                run = nr_in_run(z, at, end, pfn, state)
                free_pages(z, policy, pfn, run, code_of(state))
            freed += run
        for i in range(at, at + run):
            put_block(z.slots, i, -1)
        at += run
    return freed
