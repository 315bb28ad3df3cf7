"""The loop of the benchmarks: lifetimes that begin and end, in rows known ahead.

Owns the look-ahead that a loop over known rows can afford (allocator/prefetch.py) and the pointer chase
that speed is compared with. Runs the verbs that golden traces verify, without their result rows.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MODE_NORMAL
from spbfast.jit.decorators import entry_kernel, inline_kernel
from spbfast.model.allocator.free import free_held, hand_out, slot_pfn, take_slot
from spbfast.model.allocator.pcp import pcp_alloc, pcp_free
from spbfast.model.allocator.prefetch import PAGE_AHEAD, SLOT_AHEAD, prefetch_page, prefetch_slot
from spbfast.model.allocator.range import alloc_range, free_range
from spbfast.model.allocator.rmqueue import begin_event, rmqueue_in_mode
from spbfast.model.state.page_state import code_of, mt_of_code, state_at


@inline_kernel
def begin_lifetime(z, policy, slot, mt):
    """One order-0 request into owner 0's empty slot; 1 if it was served."""
    if z.geo.nr_cpus > 0:
        pfn = pcp_alloc(z, policy, 0, 0, mt, 0)
    else:
        pfn = rmqueue_in_mode(z, policy, 0, mt, 0, MODE_NORMAL)
    if pfn < 0:
        return 0
    hand_out(z, pfn, 0, mt, 0, slot)
    return 1


@inline_kernel
def end_lifetime(z, policy, slot):
    """Free the page in owner 0's slot; 1 block freed."""
    pfn = take_slot(z, 0, slot)
    if z.geo.nr_cpus > 0:
        pcp_free(z, policy, 0, pfn, 0, mt_of_code(code_of(state_at(z.page, pfn))))
    else:
        free_held(z, policy, pfn)
    return 1


@inline_kernel
def look_ahead_slots(z, slots, i):
    """Ask for the slot entry of a later row, and for the page that a nearer row frees."""
    if i + SLOT_AHEAD < slots.size:
        prefetch_slot(z.slots, 0, np.int64(slots[i + SLOT_AHEAD]))
        prefetch_page(z.page, slot_pfn(z, 0, np.int64(slots[i + PAGE_AHEAD])))


@entry_kernel
def run_lifetimes(z, policy, slots, mt):
    """Each row is an event: free what is in the slot, or allocate a page into it if it is empty.

    Returns the number of page events; a request that failed is none.
    """
    nr = 0
    for i in range(slots.size):
        look_ahead_slots(z, slots, i)
        begin_event(z, i)
        slot = np.int64(slots[i])
        if slot_pfn(z, 0, slot) < 0:
            nr += begin_lifetime(z, policy, slot, mt)
        else:
            nr += end_lifetime(z, policy, slot)
    return nr


@entry_kernel
def run_ranges(z, policy, slots, mt, nr_pages):
    """Each row is an event on `nr_pages` consecutive slots: free them, or fill them if the first is empty.

    Returns the number of pages allocated and freed.
    """
    nr = 0
    for i in range(slots.size):
        begin_event(z, i)
        slot = np.int64(slots[i])
        if slot_pfn(z, 0, slot) < 0:
            nr += alloc_range(z, policy, 0, slot, nr_pages, mt, mt, 0)
        else:
            nr += free_range(z, policy, 0, slot, nr_pages)
    return nr


@entry_kernel
def chase(links, at, nr):
    """Follow `nr` links, each load waiting for the one before; where that leads."""
    for _ in range(nr):
        at = links[at]
    return at
