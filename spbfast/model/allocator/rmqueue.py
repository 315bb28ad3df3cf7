"""One request to the zone's lists: the ladder, its refusals, and the accounting of what it got.

Owns the reset of the event scratch, content accounting at hand-out and the high-water requests
(docs/spec/exact.md B.6). Watermarks, retries and the kind of caller belong to requests/alloc_pages.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_HIGHATOMIC,
    ALLOC_HIGHORDER_OPTIONAL,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    CLEAN,
    MOVABLE,
    NR_EV,
    PB_PAGES,
    REQ_DEFRAG_HIGH_WATER,
    REQ_SHRINK_HIGH_WATER,
    TAINTED,
    Ev,
    Outcome,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.fallback import claim_by_category, steal_by_category
from spbfast.model.allocator.highatomic import reserve_highatomic, take_highatomic
from spbfast.model.allocator.ladder import find_preferred, rmqueue_beyond_preferred, take_found
from spbfast.model.allocator.mainline import rmqueue_mainline
from spbfast.model.allocator.pfn import spb_of
from spbfast.model.allocator.record import trace_mainline, trace_walk
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used, needs_defrag, queue_defrag, rate_reserve
from spbfast.model.state.trace import Th


@inline_kernel
def begin_event(z, row):
    """Forget what the previous event did; `row` names this one in records."""
    # Loops of fixed length become a few vector stores; a slice would be a call.
    for i in range(Ev.SEQ):
        z.ev[i] = 0
    for i in range(Ev.ROW + 1, NR_EV):
        z.ev[i] = 0
    z.ev[Ev.SEQ] += 1
    z.ev[Ev.ROW] = row


@kernel
def rmqueue_after_ladder(z, policy, order, mt, flags):
    """What a request does when Smallest found nothing: be refused, claim, steal, fail; -1 if no page."""
    optional = policy[P.optional_refusal] and flags & ALLOC_HIGHORDER_OPTIONAL
    if optional and mt != MOVABLE and z.ev[Ev.SAW_FREE_PB]:
        z.ev[Ev.OUTCOME] = Outcome.REFUSED_OPTIONAL
        return -1
    pfn = claim_by_category(z, policy, order, mt, flags)
    if pfn < 0 and not flags & ALLOC_NOFRAGMENT:
        pfn = steal_by_category(z, policy, order, mt)
    if pfn < 0:
        z.ev[Ev.OUTCOME] = Outcome.NO_PAGE
    return pfn


@kernel
def queue_high_water(z, policy, pfn):
    """A non-movable request was served inside a tainted superpageblock that runs low on free pages."""
    spb = spb_of(z.geo, pfn)
    reserve = rate_reserve(policy, np.int64(z.spb.total[spb]))
    if z.spb.nr_free_pages[spb] >= reserve * PB_PAGES:
        return
    if policy[P.shrink_high_water]:
        z.ev[Ev.REQUESTS] |= REQ_SHRINK_HIGH_WATER
    if policy[P.defrag_high_water] and needs_defrag(z, policy, spb):
        queue_defrag(z, spb, REQ_DEFRAG_HIGH_WATER)


@inline_kernel
def is_served_in_tainted(outcome):
    """Whether an outcome of a non-movable request means that the tainted pool served it."""
    return (
        0 < outcome <= Outcome.CLAIM_PARTIAL_PAGEBLOCK
        or outcome == Outcome.BORROW_NONMOVABLE
        or outcome == Outcome.BORROW_MOVABLE
    )


@inline_kernel
def begin_ladder(z):
    """A request begins: forget what the one before it saw of tainted superpageblocks."""
    z.ev[Ev.SAW_FREE_PB] = 0
    z.ev[Ev.SAW_BELOW] = 0


@inline_kernel
def rmqueue_from(z, policy, order, mt, flags, spb, whole_first):
    """One request through the ladder and the fallbacks, once `find_preferred` has named `spb` or -1."""
    if spb >= 0:
        pfn = take_found(z, policy, spb, order, mt, whole_first)
    else:
        pfn = rmqueue_beyond_preferred(z, policy, order, mt, flags)
    if z.trace.head[Th.ON]:
        trace_walk(z, order, mt, flags, pfn)
    if pfn < 0:
        pfn = rmqueue_after_ladder(z, policy, order, mt, flags)
    if pfn >= 0:
        add_used(z, pfn, order, mt)
        settle(z, policy, pfn)
        if mt != MOVABLE and is_served_in_tainted(z.ev[Ev.OUTCOME]):
            queue_high_water(z, policy, pfn)
    return pfn


@inline_kernel
def rmqueue(z, policy, order, mt, flags):
    """Take a block of 2**order pages for a request of type mt off the lists, or -1.

    The block is accounted as `mt` but heads nothing yet: the caller hands it out (free.py) or puts it
    on a per-CPU list. `Ev.MODE` must be MODE_NORMAL, or what a bulk call left there.
    """
    if z.geo.set_mask == 0:
        pfn = rmqueue_mainline(z, policy, order, mt, flags)
        if pfn >= 0:
            if z.trace.head[Th.ON]:
                trace_mainline(z, pfn, order, mt)
            add_used(z, pfn, order, mt)
            settle(z, policy, pfn)
        return pfn
    begin_ladder(z)
    spb, whole_first = find_preferred(z, policy, order, mt, CLEAN if mt == MOVABLE else TAINTED)
    return rmqueue_from(z, policy, order, mt, flags, spb, whole_first)


@kernel
def rmqueue_in_mode(z, policy, order, mt, flags, mode):
    """`rmqueue` where the call costs less than its inlined body; leaves the next mode in `Ev.MODE`.

    Callers with access to the HIGHATOMIC reserve take from it (rmqueue_buddy): those that may reserve
    before anything else, and all of them when there is nothing else.
    """
    z.ev[Ev.MODE] = mode
    if policy[P.highatomic_reserve] and flags & (ALLOC_HIGHATOMIC | ALLOC_NON_BLOCK):
        return rmqueue_with_reserve(z, policy, order, mt, flags)
    return rmqueue(z, policy, order, mt, flags)


@kernel
def rmqueue_with_reserve(z, policy, order, mt, flags):
    """One request of a caller with access to the HIGHATOMIC reserve, or -1."""
    if flags & ALLOC_HIGHATOMIC:
        pfn = take_highatomic(z, policy, order, mt)
        if pfn >= 0:
            return pfn
    pfn = rmqueue(z, policy, order, mt, flags)
    if pfn < 0:
        return take_highatomic(z, policy, order, mt)
    if flags & ALLOC_HIGHATOMIC:
        reserve_highatomic(z, policy, pfn, order)
    return pfn
