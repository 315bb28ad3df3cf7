"""The request of Linux 6.19 on one set of free lists (docs/spec/golden.md, section 5).

Owns the four modes of __rmqueue, which a bulk call carries from block to block, and the extfrag
records. Superpageblocks play no part here beyond being accounted for.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_CMA,
    ALLOC_NOFRAGMENT,
    CMA,
    MAX_ORDER,
    MODE_CMA,
    MODE_NORMAL,
    MODE_STEAL,
    MOVABLE,
    PB_ORDER,
    C,
    Ev,
    Outcome,
    P,
)
from spbfast.jit.decorators import ctz, inline_kernel, kernel
from spbfast.model.allocator.buddy import take_first
from spbfast.model.allocator.claim import claim_block, find_near_tainted
from spbfast.model.allocator.freelist import first_block, has_block
from spbfast.model.allocator.pick import fallback_of, order_mask
from spbfast.model.allocator.record import record_extfrag, tally_pollute, tally_steal


@inline_kernel
def take_smallest(z, order, mt):
    """Take the smallest block of a type that is big enough, or -1 (__rmqueue_smallest)."""
    orders = order_mask(z, 0, mt) >> order
    if orders == 0:
        return -1
    return take_first(z, 0, order + ctz(orders), order, mt)


@inline_kernel
def find_suitable_fallback(z, order, mt):
    """First fallback type with a free block of exactly this order, or -1."""
    for i in range(2):
        other = fallback_of(mt, i)
        if has_block(z, 0, order, other):
            return other
    return -1


@kernel
def rmqueue_claim(z, policy, order, mt, flags):
    """Turn a foreign pageblock, the largest block first, and take from it, or -1 (__rmqueue_claim)."""
    low = PB_ORDER if flags & ALLOC_NOFRAGMENT and order < PB_ORDER else order
    for high in range(MAX_ORDER, low - 1, -1):
        if mt == MOVABLE and high < PB_ORDER // 2:
            return -1
        other = find_suitable_fallback(z, high, mt)
        if other < 0:
            continue
        if policy[P.claim_prefers_tainted] and mt != MOVABLE:
            block = find_near_tainted(z, high, other)
        else:
            block = first_block(z, 0, high, other)
        pfn = claim_block(z, policy, block, high, order, mt, other)
        if pfn >= 0:
            tally_steal(z, mt, other)
            record_extfrag(z, pfn, order, high, mt, other)
            return pfn
    return -1


@kernel
def rmqueue_steal(z, order, mt):
    """Take one block of another type, the smallest first, without relabelling, or -1."""
    for high in range(order, MAX_ORDER + 1):
        other = find_suitable_fallback(z, high, mt)
        if other >= 0:
            pfn = take_first(z, 0, high, order, other)
            tally_pollute(z, mt, other)
            record_extfrag(z, pfn, order, high, mt, other)
            return pfn
    return -1


@kernel
def rmqueue_fallback(z, policy, order, mt, flags):
    """Claim or steal by the mode so far; the mode of a bulk call lives in `Ev.MODE`."""
    if z.ev[Ev.MODE] != MODE_STEAL:
        pfn = rmqueue_claim(z, policy, order, mt, flags)
        if pfn >= 0:
            z.ev[Ev.MODE] = MODE_NORMAL
            z.ev[Ev.OUTCOME] = Outcome.CLAIM_FALLBACK_PREFERRED
            return pfn
    if flags & ALLOC_NOFRAGMENT:
        return -1
    pfn = rmqueue_steal(z, order, mt)
    if pfn >= 0:
        z.ev[Ev.MODE] = MODE_STEAL
        z.ev[Ev.OUTCOME] = Outcome.STEAL_FALLBACK
    return pfn


@inline_kernel
def rmqueue_mainline(z, policy, order, mt, flags):
    """One request at the buddy level, or -1 (__rmqueue)."""
    mode = z.ev[Ev.MODE]
    z.ev[Ev.OUTCOME] = Outcome.TAKE_PREFERRED
    pfn = np.int64(-1)
    if flags & ALLOC_CMA and z.count[C.FREE_CMA] > z.count[C.FREE_PAGES] // 2:
        pfn = take_smallest(z, order, CMA)
    if pfn < 0 and mode == MODE_NORMAL:
        pfn = take_smallest(z, order, mt)
    if pfn < 0 and flags & ALLOC_CMA and mode <= MODE_CMA:
        pfn = take_smallest(z, order, CMA)
        if pfn >= 0:
            z.ev[Ev.MODE] = MODE_CMA
    if pfn < 0:
        pfn = rmqueue_fallback(z, policy, order, mt, flags)
        if pfn < 0:
            z.ev[Ev.OUTCOME] = Outcome.NO_PAGE
    return pfn
