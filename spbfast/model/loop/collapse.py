"""khugepaged: huge pages rebuilt from base pages.

Owns which regions are looked at, which of them become huge pages again, and the pace. The region's owner and
its slots stay: the huge page takes the first of them, as after a huge fault.
It runs at the beginning of a tick, after the work that is due.
Source: khugepaged_do_scan, hpage_collapse_scan_pmd and collapse_huge_page (mm/khugepaged.c).

Model: regions are those of daemons and guests, looked at in the order of owners and slots. One is rebuilt
only if all of its pages are in use in this zone or in swap: the kernel also fills holes (max_ptes_none), but
here demand fills them later, page by page. That a region was used lately (SCAN_LACK_REFERENCED_PAGE) or is
shared (max_ptes_shared) is not modelled.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLS_BLOCKING, CLS_NOWARN, MOVABLE, NS_PER_TICK, PB_ORDER, PB_PAGES
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.free import free_held, hand_out, slot_pfn, take_slot
from spbfast.model.allocator.record import trace_free
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.holders.swap import count_anon
from spbfast.model.requests.alloc_pages import request
from spbfast.model.state.node import Kh, N, Now
from spbfast.model.state.page_state import CODE_MOVABLE, code_of, state_at
from spbfast.model.state.slots import SWAPPED
from spbfast.model.state.trace import Th
from spbfast.model.state.vmstat import V, Vo
from spbfast.model.workers.defer import defer_requests

# GFP_TRANSHUGE: it reclaims and compacts for itself and does not wake kswapd.
CLS_COLLAPSE = CLS_BLOCKING | CLS_NOWARN


@kernel
def next_region(z, node):
    """The region to be looked at, as (owner, its first slot); the position moves on, round and round."""
    hand = node.collapse
    owner = hand[Kh.FIRST_OWNER + hand[Kh.AT]]
    slot = hand[Kh.SLOT]
    hand[Kh.SLOT] = slot + PB_PAGES
    if hand[Kh.SLOT] + PB_PAGES > z.slots.size[owner]:
        hand[Kh.SLOT] = 0
        hand[Kh.AT] = hand[Kh.AT] + 1 if Kh.FIRST_OWNER + hand[Kh.AT] + 1 < hand.shape[0] else 0
    return owner, slot


@kernel
def is_collapsible(z, owner, first, swapped_most):
    """Whether all of a region's base pages are there or in swap, and none is pinned."""
    swapped = 0
    for slot in range(first, first + PB_PAGES):
        pfn = slot_pfn(z, owner, slot)
        if pfn == SWAPPED:
            swapped += 1
            if swapped > swapped_most:
                return False
        elif pfn < 0 or code_of(state_at(z.page, pfn)) != CODE_MOVABLE:
            return False
    return True


@kernel
def free_copied(w, policy, owner, first):
    """Free a region's base pages, and give back its swap. Returns how many were in swap."""
    z, node = w.zone, w.node
    swapped = np.int64(0)
    for slot in range(first, first + PB_PAGES):
        pfn = take_slot(z, owner, slot)
        if pfn == SWAPPED:
            swapped += 1
            continue
        if z.trace.head[Th.ON]:
            trace_free(z, pfn, 0, 0, 0)
        free_held(z, policy, pfn)
    node.vm[V.PGFREE] += PB_PAGES - swapped
    node.vm[V.PAGE_EVENTS] += PB_PAGES - swapped
    return swapped


@kernel
def collapse(w, policy, owner, first):
    """A huge page in place of a region's base pages; False if none could be had (collapse_huge_page)."""
    z, node = w.zone, w.node
    cpu = node.now[Now.NS] // NS_PER_TICK % max(z.geo.nr_cpus, 1)
    pfn = request(w, policy, np.int64(PB_ORDER), np.int64(MOVABLE), np.int64(CLS_COLLAPSE), cpu)
    if pfn < 0:
        node.vm[Vo.THP_COLLAPSE_ALLOC_FAILED] += 1
        return False
    begin_event(z, 0)
    # What reclaim has swapped out meanwhile comes back, too.
    swapped = free_copied(w, policy, owner, first)
    hand_out(z, pfn, PB_ORDER, CODE_MOVABLE, owner, first)
    count_anon(z, owner, CODE_MOVABLE, swapped)
    node.vm[Vo.PSWPIN] += swapped
    node.vm[Vo.THP_COLLAPSE_ALLOC] += 1
    defer_requests(w, policy, MOVABLE)
    return True


@kernel
def run_khugepaged(w, policy):
    """Look at the next regions, rebuild what can be rebuilt, and sleep (khugepaged_do_scan).

    Model: a scan ends with the first huge page that could not be had; the kernel pauses and goes on once.
    """
    node = w.node
    if node.now[Now.NS] < node.collapse[Kh.DUE]:
        return
    spent = np.int64(0)
    sleep = node.conf[N.COLLAPSE_SLEEP]
    for _ in range(node.conf[N.COLLAPSE_REGIONS]):
        owner, first = next_region(w.zone, node)
        if not is_collapsible(w.zone, owner, first, node.conf[N.COLLAPSE_SWAPPED]):
            continue
        if not collapse(w, policy, owner, first):
            sleep = node.conf[N.COLLAPSE_PAUSE]
            break
        spent += node.conf[N.MIGRATE_THP_COST]
    node.collapse[Kh.DUE] = node.now[Now.NS] + spent + sleep
