"""Anonymous memory in swap: which pages go, what their slots say meanwhile, which are touched again.

Owns the clock hands, the count of anonymous pages and the list of pages that are touched again; of the slots
it marks those whose pages are in swap. How much is swapped out is said in workers/scan_balance.py, the touch
itself is in loop/refault.py. An owner that frees a slot in swap gives it back (`take_slot`).
Source: shrink_node_memcgs, shrink_folio_list and folio_alloc_swap (mm/vmscan.c, mm/swapfile.c).

Model: memory that may go is that of daemons and guests, as far as it is not pinned. Owners take turns like
memcgs in a pass at DEF_PRIORITY: a 4096th of what each has. Within an owner a hand goes over the slots, round
and round: that is the order in which memory was touched first. That a page was used since is not modelled. A
huge page goes whole while swap has room for it, else it is split; swap itself never fragments.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import DEF_PRIORITY, PB_ORDER, C, Ev
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import free_held, slot_pfn
from spbfast.model.allocator.record import trace_free
from spbfast.model.allocator.split import split_huge
from spbfast.model.state.node import N, Now, Sw, To
from spbfast.model.state.page_state import CODE_MOVABLE, code_of, order_of, state_at
from spbfast.model.state.slots import SWAPPED, put_block
from spbfast.model.state.trace import Cause, Th
from spbfast.model.state.vmstat import V, Vo

LOOKS_MOST = 1 << 18  # slots that one call looks at: most may be empty, in swap or pinned


@inline_kernel
def count_anon(z, owner, code, nr):
    """An owner has `nr` pages of this code more in use, or fewer: count those that may go to swap."""
    if z.slots.anon[owner] and code == CODE_MOVABLE:
        z.slots.nr_anon[owner] += nr
        z.count[C.ANON_PAGES] += nr


@inline_kernel
def nr_swap_left(z, node):
    """Pages that swap has room for."""
    return node.conf[N.SWAP_PAGES] - z.count[C.SWAP_PAGES]


@inline_kernel
def can_reclaim_anon(z, node):
    """Whether there is anonymous memory that may go, and room for it (can_reclaim_anon_pages)."""
    return nr_swap_left(z, node) > 0 and z.count[C.ANON_PAGES] > 0


@kernel
def begin_turn(z, node):
    """The next owner that has pages which may go to swap; there must be one."""
    owner = node.swap[Sw.OWNER]
    nr = node.hands.shape[0]
    for _ in range(nr):
        owner = owner + 1 if owner + 1 < nr else np.int64(0)
        if z.slots.nr_anon[owner] > 0:
            break
    node.swap[Sw.OWNER] = owner
    node.swap[Sw.LEFT] = max(z.slots.nr_anon[owner] >> DEF_PRIORITY, 1)


@kernel
def add_touches(node, owner, slot, nr):
    """Put the share of `nr` pages just swapped out that is touched again on the list, spread evenly."""
    most = node.touch.shape[0]
    if most == 0:
        return
    for i in range(slot, slot + nr):
        acc = node.swap[Sw.ACC] + node.conf[N.REFAULT_SWAP_SHARE]
        node.swap[Sw.ACC] = acc & 0xFFFF
        tail = node.swap[Sw.TAIL]
        if acc <= 0xFFFF or tail - node.swap[Sw.HEAD] >= most:
            continue
        row = node.touch[tail % most]
        row[To.OWNER], row[To.SLOT] = owner, i
        row[To.DUE] = node.now[Now.NS] + node.conf[N.REFAULT_SWAP_DELAY]
        node.swap[Sw.TAIL] = tail + 1


@kernel
def swap_out_block(z, policy, node, owner, slot, pfn, order):
    """Free a block whose pages go to swap: each of their slots stands for a page there."""
    pages = np.int64(1) << order
    at = z.slots.base[owner] + slot
    for i in range(at, at + pages):
        put_block(z.slots, i, SWAPPED)
    count_anon(z, owner, CODE_MOVABLE, -pages)
    z.count[C.SWAP_PAGES] += pages
    if z.trace.head[Th.ON]:
        trace_free(z, pfn, order, 0, 0)
    free_held(z, policy, pfn)
    node.vm[Vo.PSWPOUT] += pages
    node.vm[Vo.THP_SWPOUT] += order == PB_ORDER
    node.vm[V.PGFREE] += pages
    node.vm[V.PAGE_EVENTS] += 1
    add_touches(node, owner, slot, pages)


@kernel
def swap_out_slot(z, policy, node, owner, slot):
    """Swap out what is in a slot, if it may go. Returns (pages freed, pages looked at)."""
    pfn = slot_pfn(z, owner, slot)
    if pfn < 0:
        return np.int64(0), np.int64(0)
    state = state_at(z.page, pfn)
    order = order_of(state)
    if code_of(state) != CODE_MOVABLE:
        return np.int64(0), np.int64(1) << order
    if order == PB_ORDER and nr_swap_left(z, node) < 1 << order:
        # Swap has no room for the whole: its pages go one by one.
        split_huge(z, pfn)
        node.vm[Vo.THP_SWPOUT_FALLBACK] += 1
        order = np.int64(0)
    swap_out_block(z, policy, node, owner, slot, pfn, order)
    return np.int64(1) << order, np.int64(1) << order


@kernel
def swap_out(z, policy, node, want):
    """Swap out until `want` pages are free, or nothing may go any more; pages freed."""
    freed = np.int64(0)
    cause = z.ev[Ev.CAUSE]
    z.ev[Ev.CAUSE] = Cause.RECLAIM
    for _ in range(LOOKS_MOST):
        if freed >= want or not can_reclaim_anon(z, node):
            break
        if node.swap[Sw.LEFT] <= 0 or z.slots.nr_anon[node.swap[Sw.OWNER]] == 0:
            begin_turn(z, node)
        owner = node.swap[Sw.OWNER]
        slot = node.hands[owner]
        node.hands[owner] = slot + 1 if slot + 1 < z.slots.size[owner] else np.int64(0)
        gone, looked = swap_out_slot(z, policy, node, owner, slot)
        node.swap[Sw.LEFT] -= looked
        freed += gone
    z.ev[Ev.CAUSE] = cause
    return freed
