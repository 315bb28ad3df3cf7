"""Per-CPU page lists: allocation, free, drain and decay as in Linux 6.19 (docs/spec/golden.md, section 6).

Owns the scalars that tune the lists, together with refill.py. With owned pageblocks the same scalars tune
the lists of resting.py instead. A block that goes to a request of another type is accounted anew.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_NOFRAGMENT,
    COSTLY_ORDER,
    MODE_NORMAL,
    MOVABLE,
    NR_PCP_LISTS,
    NR_REQUEST_MT,
    PB_ORDER,
    PCP_BATCH_SCALE_MAX,
    PCPF_FREE_HIGH_BATCH,
    PCPF_PREV_FREE_HIGH_ORDER,
    C,
    Ev,
    P,
    Pc,
    Tp,
    Tune,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.buddy import free_piece
from spbfast.model.allocator.owned import refill_owned
from spbfast.model.allocator.owner import note_fragments
from spbfast.model.allocator.pcplist import (
    add_to_pcp,
    is_pcp_order,
    list_order,
    pcp_list,
    take_pcp_head,
    take_pcp_tail,
)
from spbfast.model.allocator.record import is_traced, trace_drained
from spbfast.model.allocator.refill import rate_refill, refill
from spbfast.model.allocator.resting import drain_resting, rest_freed, take_resting
from spbfast.model.allocator.rmqueue import rmqueue_in_mode
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used, del_used
from spbfast.model.state.page_state import pcp_mt, set_tail, state_at
from spbfast.model.state.trace import Cause


@inline_kernel
def take_from_pcp(z, policy, cpu, order, mt, i):
    """Take the head block of a list that is not empty for a request of type mt."""
    pfn = take_pcp_head(z, cpu, i, order)
    old = pcp_mt(state_at(z.page, pfn))
    if old != mt:
        cause = z.ev[Ev.CAUSE]
        z.ev[Ev.CAUSE] = Cause.PCP_RECYCLE
        del_used(z, policy, pfn, order, old)
        add_used(z, pfn, order, mt)
        settle(z, policy, pfn)
        z.ev[Ev.CAUSE] = cause
    return pfn


@kernel
def take_past_lists(z, policy, order, mt, flags):
    """The request by itself, where it may fragment and its refill might not, or -1 (rmqueue_buddy)."""
    if not policy[P.bulk_nofragment] or flags & ALLOC_NOFRAGMENT:
        return np.int64(-1)
    return rmqueue_in_mode(z, policy, order, mt, flags, MODE_NORMAL)


@kernel
def pcp_alloc_owned(z, policy, cpu, order, mt, flags):
    """`pcp_alloc` with owned pageblocks."""
    pfn = take_resting(z, policy, cpu, order, mt)
    if pfn >= 0:
        return pfn
    refill_owned(z, policy, cpu, order, mt, flags, rate_refill(z, cpu, order) << order)
    pfn = take_resting(z, policy, cpu, order, mt)
    if pfn >= 0:
        return pfn
    if order == PB_ORDER:
        return rmqueue_in_mode(z, policy, order, mt, flags, MODE_NORMAL)
    return take_past_lists(z, policy, order, mt, flags)


@inline_kernel
def pcp_alloc(z, policy, cpu, order, mt, flags):
    """A block of a per-CPU order from a CPU's lists, refilled if need be, or -1."""
    z.pcp.cpu[cpu, Pc.FREE_COUNT] >>= 1
    if policy[P.pcp_owned_pageblocks]:
        return pcp_alloc_owned(z, policy, cpu, order, mt, flags)
    i = pcp_list(order, mt)
    if z.pcp.nr[cpu * NR_PCP_LISTS + i] == 0:
        refill(z, policy, cpu, order, mt, flags)
        if z.pcp.nr[cpu * NR_PCP_LISTS + i] == 0:
            return take_past_lists(z, policy, order, mt, flags)
    return take_from_pcp(z, policy, cpu, order, mt, i)


@kernel
def drain_list(z, policy, cpu, i, nr):
    """Free blocks from a list's tail until `nr` pages are gone or it is empty; pages still to go."""
    order = list_order(i)
    traced = is_traced(z, Tp.MM_PAGE_PCPU_DRAIN)
    cause = z.ev[Ev.CAUSE]
    z.ev[Ev.CAUSE] = Cause.PCP_DRAIN
    while nr > 0 and z.pcp.nr[cpu * NR_PCP_LISTS + i] > 0:
        pfn = take_pcp_tail(z, cpu, i, order)
        mt = pcp_mt(state_at(z.page, pfn))
        set_tail(z.page, pfn)
        if traced:
            trace_drained(z, pfn, order, mt)
        del_used(z, policy, pfn, order, mt)
        free_piece(z, pfn, order, False)
        settle(z, policy, pfn)
        nr -= 1 << order
    z.ev[Ev.CAUSE] = cause
    return nr


@kernel
def drain_bulk(z, policy, cpu, nr, i):
    """Free up to `nr` pages round-robin, beginning with list i (free_pcppages_bulk)."""
    nr = min(nr, z.pcp.cpu[cpu, Pc.COUNT])
    if policy[P.pcp_owned_pageblocks]:
        # A list's number modulo the types is its type, that of order 9 included.
        drain_resting(z, policy, cpu, nr, i % NR_REQUEST_MT)
        return
    i -= 1
    while nr > 0:
        i = 0 if i == NR_PCP_LISTS - 1 else i + 1
        if z.pcp.nr[cpu * NR_PCP_LISTS + i] > 0:
            nr = drain_list(z, policy, cpu, i, nr)


@kernel
def drain_all(z, policy, cpu):
    """Empty a CPU's lists (drain_pages)."""
    pcp = z.pcp.cpu[cpu]
    most = z.pcp.conf[Tune.BATCH] << PCP_BATCH_SCALE_MAX
    while pcp[Pc.COUNT] > 0:
        drain_bulk(z, policy, cpu, min(pcp[Pc.COUNT], most), 0)


@kernel
def decay(z, policy, cpu):
    """Let `high` decay by an eighth and free what is above it (decay_pcp_high)."""
    pcp = z.pcp.cpu[cpu]
    batch, high_min = z.pcp.conf[Tune.BATCH], z.pcp.conf[Tune.HIGH_MIN]
    if pcp[Pc.HIGH] > high_min:
        by_count = pcp[Pc.COUNT] - (batch << PCP_BATCH_SCALE_MAX)
        pcp[Pc.HIGH] = max(by_count, pcp[Pc.HIGH] - (pcp[Pc.HIGH] >> 3), high_min)
        if policy[P.pcp_owned_pageblocks]:
            # A whole pageblock claimed at once brings a CPU far above its limit.
            pcp[Pc.HIGH] = min(pcp[Pc.HIGH], z.pcp.conf[Tune.HIGH_MAX])
    nr = pcp[Pc.COUNT] - pcp[Pc.HIGH]
    while nr > 0:
        step = min(nr, batch)
        drain_bulk(z, policy, cpu, step, 0)
        nr -= step


@inline_kernel
def is_free_high(z, cpu, order):
    """Whether frees of high orders come in a row, so that the lists should be emptied; keeps the flag."""
    pcp = z.pcp.cpu[cpu]
    if order == 0 or order > COSTLY_ORDER:
        pcp[Pc.FLAGS] &= ~PCPF_PREV_FREE_HIGH_ORDER
        return False
    batch = z.pcp.conf[Tune.BATCH]
    result = (
        pcp[Pc.FREE_COUNT] >= batch + z.pcp.conf[Tune.HIGH_MIN] // 2
        and pcp[Pc.FLAGS] & PCPF_PREV_FREE_HIGH_ORDER != 0
        and (pcp[Pc.FLAGS] & PCPF_FREE_HIGH_BATCH == 0 or pcp[Pc.COUNT] >= batch)
    )
    pcp[Pc.FLAGS] |= PCPF_PREV_FREE_HIGH_ORDER
    return result


@inline_kernel
def rate_limit(z, cpu, free_high):
    """Page count from which a free makes the lists give pages back; adapts `high` (nr_pcp_high)."""
    pcp = z.pcp.cpu[cpu]
    batch, high_min, high_max = z.pcp.conf[Tune.BATCH], z.pcp.conf[Tune.HIGH_MIN], z.pcp.conf[Tune.HIGH_MAX]
    high = min(max(pcp[Pc.HIGH], high_min), high_max)
    pcp[Pc.HIGH] = high
    if high == 0:
        return np.int64(0)
    if free_high:
        pcp[Pc.HIGH] = max(high - (batch << PCP_BATCH_SCALE_MAX), high_min)
        return np.int64(0)
    if z.count[C.RECLAIM_ACTIVE]:
        # What reclaim frees has to come to the free lists, where watermarks count it.
        pcp[Pc.HIGH] = max(high - max(pcp[Pc.FREE_COUNT], batch), high_min)
        return min(batch << 2, pcp[Pc.HIGH])
    if high_min == high_max:
        return high
    if z.count[C.BELOW_HIGH]:
        pcp[Pc.HIGH] = max(high - max(pcp[Pc.FREE_COUNT], batch), high_min)
        return max(pcp[Pc.COUNT], high_min)
    if pcp[Pc.COUNT] >= high and high < pcp[Pc.FREE_COUNT] + batch:
        pcp[Pc.HIGH] = min(max(pcp[Pc.FREE_COUNT] + batch, high_min), high_max)
    return high


@kernel
def shrink_pcp(z, policy, cpu, i, limit, free_high):
    """Give pages back after a free reached the limit, beginning with the list just freed to."""
    pcp = z.pcp.cpu[cpu]
    batch = z.pcp.conf[Tune.BATCH]
    if free_high:
        nr = min(pcp[Pc.COUNT], batch << PCP_BATCH_SCALE_MAX)
    elif limit < batch:
        nr = np.int64(1)
    else:
        nr = min(max(pcp[Pc.FREE_COUNT], batch), limit - batch)
    while nr > 0 and pcp[Pc.COUNT] > 0:
        step = min(nr, batch)
        drain_bulk(z, policy, cpu, step, i)
        nr -= step


@inline_kernel
def note_above_high(z):
    """Let lists grow again if free pages are above the high watermark (free_frozen_page_commit)."""
    mark = z.pcp.conf[Tune.MARK_HIGH] + z.count[C.WATERMARK_BOOST]
    if z.count[C.FREE_PAGES] - z.count[C.FREE_HIGHATOMIC] > mark:
        z.count[C.BELOW_HIGH] = 0


@inline_kernel
def limit_after_free(z, policy, cpu, i, order):
    """Count a freed block of list i and give pages back if a CPU holds too many."""
    pcp = z.pcp.cpu[cpu]
    free_high = is_free_high(z, cpu, order)
    if pcp[Pc.FREE_COUNT] < z.pcp.conf[Tune.BATCH] << PCP_BATCH_SCALE_MAX:
        pcp[Pc.FREE_COUNT] += 1 << order
    limit = rate_limit(z, cpu, free_high)
    if pcp[Pc.COUNT] >= limit:
        shrink_pcp(z, policy, cpu, i, limit, free_high)
        if z.count[C.BELOW_HIGH]:
            note_above_high(z)


@kernel
def pcp_free_owned(z, policy, cpu, pfn, order, mt):
    """`pcp_free` with owned pageblocks: the owner's lists take the block, or the freeing CPU's."""
    label = np.int64(z.pb.label[pfn >> PB_ORDER])
    i = pcp_list(order, label if label < NR_REQUEST_MT else MOVABLE)
    cpu = rest_freed(z, policy, cpu, pfn, order, mt)
    if cpu >= 0:
        z.pcp.cpu[cpu, Pc.ALLOC_FACTOR] >>= 1
        limit_after_free(z, policy, cpu, i, order)


@kernel
def free_to_owner(z, policy, pfn, order, mt):
    """Free a block accounted as mt to the owner of its pageblock; 0 if that is for the free lists to take."""
    pb = pfn >> PB_ORDER
    if z.pb.owner[pb] == 0:
        return 0
    if not is_pcp_order(order):
        note_fragments(z, pb)
        return 0
    pcp_free_owned(z, policy, np.int64(z.pb.owner[pb]) - 1, pfn, order, mt)
    return 1


@inline_kernel
def pcp_free(z, policy, cpu, pfn, order, mt):
    """Put a block accounted as type mt on a CPU's list, by its pageblock's current type."""
    if policy[P.pcp_owned_pageblocks]:
        pcp_free_owned(z, policy, cpu, pfn, order, mt)
        return
    label = np.int64(z.pb.label[pfn >> PB_ORDER])
    i = pcp_list(order, label if label < NR_REQUEST_MT else MOVABLE)
    z.pcp.cpu[cpu, Pc.ALLOC_FACTOR] >>= 1
    add_to_pcp(z, cpu, i, pfn, order, mt)
    limit_after_free(z, policy, cpu, i, order)
