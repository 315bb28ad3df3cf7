"""Refills of the classic per-CPU lists: how many blocks, and in runs where that changes nothing.

A refill is a bulk call of equal requests (rmqueue_bulk). As long as a superpageblock's fragments serve them,
the search of the first finds what those of the others would find; it is made once and counted for each.
Blocks of one list then leave it as the run that they are, larger ones are cut up at once (fragments.py).
Everything else, and all of it while events are recorded, goes one by one through rmqueue.
tests/test_refill.py holds both equal.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_CMA,
    ALLOC_NOFRAGMENT,
    CLEAN,
    MODE_NORMAL,
    MOVABLE,
    NR_PCP_LISTS,
    PB_ORDER,
    PCP_BATCH_SCALE_MAX,
    TAINTED,
    WALK_SEARCHED,
    WALK_VISITED,
    C,
    Ev,
    Outcome,
    P,
    Pc,
    Tune,
)
from spbfast.jit.decorators import ctz, inline_kernel, kernel, prefetch
from spbfast.model.allocator.fragments import fragments_for, is_from_fragments, note_served, take_fragment
from spbfast.model.allocator.freelist import cut_first, first_block
from spbfast.model.allocator.ladder import find_preferred, remember_preferred
from spbfast.model.allocator.pcplist import count_blocks, link_behind, pcp_list
from spbfast.model.allocator.pfn import list_of
from spbfast.model.allocator.rmqueue import begin_ladder, rmqueue, rmqueue_from
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import account_pages, add_used
from spbfast.model.state.page_state import next_of, pcp_state
from spbfast.model.state.trace import Th


@kernel
def rate_refill(z, cpu, order):
    """Number of blocks that a refill asks for; raises `high` and the batch factor (nr_pcp_alloc)."""
    pcp = z.pcp.cpu[cpu]
    batch, high_min, high_max = z.pcp.conf[Tune.BATCH], z.pcp.conf[Tune.HIGH_MIN], z.pcp.conf[Tune.HIGH_MAX]
    pcp[Pc.HIGH] = min(max(pcp[Pc.HIGH], high_min), high_max)
    if pcp[Pc.HIGH] < batch:
        return 1
    nr = batch if order > 0 else batch << pcp[Pc.ALLOC_FACTOR]
    if high_min != high_max and not z.count[C.BELOW_HIGH]:
        pcp[Pc.HIGH] = min(pcp[Pc.HIGH] + nr, high_max)
    if order == 0:
        most = max(pcp[Pc.HIGH] - pcp[Pc.COUNT] - batch, batch)
        if nr <= most and pcp[Pc.ALLOC_FACTOR] < PCP_BATCH_SCALE_MAX:
            pcp[Pc.ALLOC_FACTOR] += 1
        nr = min(nr, most)
    return max(nr >> order, 2) if nr > 1 else nr


@kernel
def take_listed(z, policy, cpu, set_, order, mt, most):
    """Move up to `most` blocks from the head of a free list to a per-CPU list's tail; how many."""
    i = pcp_list(order, mt)
    lst = cpu * NR_PCP_LISTS + i
    nr = min(most, np.int64(z.area.nr[list_of(set_, order, mt)]))
    place = np.int64(z.pcp.nr[lst])
    pfn = first_block(z, set_, order, mt)
    last = pfn
    for k in range(nr):
        last = pfn
        pfn = next_of(z.page, pfn)
        prefetch(z.page.word, pfn)
        link_behind(z, lst, place + k, last, pcp_state(order, mt))
        account_pages(z, last, -(1 << order))
        add_used(z, last, order, mt)
        settle(z, policy, last)
    cut_first(z, set_, order, mt, pfn, nr)
    count_blocks(z, cpu, i, nr, order)
    note_served(z, policy, last, mt)
    return nr


@kernel
def take_split(z, policy, cpu, set_, order, mt, most):
    """Cut up to `most` blocks off a larger fragment, for a per-CPU list's tail; how many."""
    first, nr = take_fragment(z, policy, set_, order, mt, most)
    i = pcp_list(order, mt)
    lst = cpu * NR_PCP_LISTS + i
    place = np.int64(z.pcp.nr[lst])
    for k in range(nr):
        link_behind(z, lst, place + k, first + (k << order), pcp_state(order, mt))
    count_blocks(z, cpu, i, nr, order)
    return nr


@kernel
def take_run(z, policy, cpu, set_, order, mt, most):
    """Move up to `most` blocks from a set's fragments to a per-CPU list; how many, at least one."""
    got = np.int64(0)
    while got < most:
        orders = fragments_for(z, set_, order, mt)
        if orders == 0:
            break
        if ctz(orders) == order:
            got += take_listed(z, policy, cpu, set_, order, mt, most - got)
        else:
            got += take_split(z, policy, cpu, set_, order, mt, most - got)
    return got


@inline_kernel
def count_repeats(z, policy, searched, visited, repeats):
    """Count the searches that a run spared: each like the first, or none where there is a hint by now."""
    if policy[P.preferred_hint]:
        z.count[C.HINTS_USED] += repeats
        return
    z.ev[Ev.VISITED] += visited * repeats
    z.walks[WALK_SEARCHED, Outcome.TAKE_PREFERRED] += searched * repeats
    z.walks[WALK_VISITED, Outcome.TAKE_PREFERRED] += visited * repeats


@inline_kernel
def refill_one(z, cpu, order, mt, pfn):
    """Put the block that one request got, if it got one, on a per-CPU list; 1 if it did."""
    if pfn < 0:
        return 0
    i = pcp_list(order, mt)
    lst = cpu * NR_PCP_LISTS + i
    link_behind(z, lst, np.int64(z.pcp.nr[lst]), pfn, pcp_state(order, mt))
    count_blocks(z, cpu, i, 1, order)
    return 1


@kernel
def refill_from_superpageblocks(z, policy, cpu, order, mt, flags, most):
    """The next blocks of a bulk call by the ladder; how many, 0 if a request failed."""
    begin_ladder(z)
    searched = z.walks[WALK_SEARCHED, Outcome.TAKE_PREFERRED]
    visited = z.walks[WALK_VISITED, Outcome.TAKE_PREFERRED]
    spb, whole_first = find_preferred(z, policy, order, mt, CLEAN if mt == MOVABLE else TAINTED)
    if spb < 0 or not is_from_fragments(z, spb, order, mt, whole_first):
        pfn = rmqueue_from(z, policy, order, mt, flags, spb, whole_first)
        return refill_one(z, cpu, order, mt, pfn)
    searched = z.walks[WALK_SEARCHED, Outcome.TAKE_PREFERRED] - searched
    visited = z.walks[WALK_VISITED, Outcome.TAKE_PREFERRED] - visited
    remember_preferred(z, policy, order, mt, spb)
    got = take_run(z, policy, cpu, spb, order, mt, most)
    count_repeats(z, policy, searched, visited, got - 1)
    return got


@kernel
def refill_some(z, policy, cpu, order, mt, flags, most):
    """The next blocks of a bulk call, at most `most`; how many, 0 if a request failed."""
    is_alone = order >= PB_ORDER or z.trace.head[Th.ON] != 0
    if not is_alone and z.geo.set_mask != 0:
        return refill_from_superpageblocks(z, policy, cpu, order, mt, flags, most)
    if not is_alone and not flags & ALLOC_CMA and fragments_for(z, 0, order, mt):
        return take_run(z, policy, cpu, 0, order, mt, most)
    return refill_one(z, cpu, order, mt, rmqueue(z, policy, order, mt, flags))


@kernel
def refill(z, policy, cpu, order, mt, flags):
    """Fill an empty list with one bulk call, in the order obtained (rmqueue_bulk)."""
    left = rate_refill(z, cpu, order)
    if policy[P.bulk_nofragment]:
        flags |= ALLOC_NOFRAGMENT
    z.ev[Ev.MODE] = MODE_NORMAL
    while left > 0:
        got = refill_some(z, policy, cpu, order, mt, flags, left)
        if got == 0:
            return
        left -= got
