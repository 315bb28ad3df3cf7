"""Claim and steal across superpageblock categories: what a request does when its own ladder ends.

Each search order is category first, then block order (docs/spec/exact.md B.6). A non-movable claim outside
the tainted pool would taint a superpageblock: it records the work that makes the next one unnecessary.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_NOFRAG_TAINTED_OK,
    ALLOC_NOFRAGMENT,
    CLEAN,
    EMPTY,
    MAX_ORDER,
    MOVABLE,
    PB_ORDER,
    REQ_EVACUATE_CLAIM,
    REQ_SHRINK_CLAIM,
    TAINTED,
    Ev,
    Outcome,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.buddy import take_first
from spbfast.model.allocator.choose import count_visits, find_next, nr_stepped
from spbfast.model.allocator.claim import claim_block
from spbfast.model.allocator.freelist import first_block
from spbfast.model.allocator.pick import fallback_of, order_mask
from spbfast.model.allocator.record import tally_pollute, tally_steal, trace_extfrag
from spbfast.model.allocator.spb import rate_reserve

NR_SEARCHED = 3  # categories: all that is not isolated


@inline_kernel
def search_category(mt, i):
    """The i-th category that a claim or steal searches."""
    if i == 1:
        return EMPTY
    if mt == MOVABLE:
        return CLEAN if i == 0 else TAINTED
    return TAINTED if i == 0 else CLEAN


@inline_kernel
def is_reserved(z, policy, category, mt, spb):
    """Whether the reserve of a tainted superpageblock keeps movable requests out."""
    if mt != MOVABLE or category != TAINTED:
        return False
    return z.spb.nr_free_pb[spb] <= rate_reserve(policy, np.int64(z.spb.total[spb]))


@kernel
def find_in_category(z, policy, category, order, mt, mt_a, mt_b, rung):
    """First superpageblock with a free block of exactly `order` of type mt_a, else mt_b.

    Returns (superpageblock or -1, the type found).
    """
    looked = 0
    in_a = 0
    place, spb = find_next(z, policy, category, mt_a, mt_b, order, 0)
    while place >= 0:
        looked += 1
        in_a = (order_mask(z, spb, mt_a) >> order) & 1
        in_b = (order_mask(z, spb, mt_b) >> order) & 1
        if in_a | in_b and not is_reserved(z, policy, category, mt, spb):
            break
        place, spb = find_next(z, policy, category, mt_a, mt_b, order, place + 1)
    visited = nr_stepped(z, policy, category, place, looked)
    count_visits(z, rung, visited, Ev.VISITED_FALLBACK)
    return spb, mt_a if in_a else mt_b


@inline_kernel
def rate_claim_order(z, policy, order, mt, flags, is_preferred):
    """Smallest block order that a claim may start from."""
    if order >= PB_ORDER or not flags & ALLOC_NOFRAGMENT:
        return order
    if mt == MOVABLE or not is_preferred:
        return PB_ORDER
    threshold = policy[P.aggressive_threshold]
    if threshold >= 0 and z.geo.nr_spb > threshold:
        return order
    return order if policy[P.tainted_ok_flag] and flags & ALLOC_NOFRAG_TAINTED_OK else PB_ORDER


@inline_kernel
def queue_claim_requests(z, policy, order):
    """A claim is about to taint a superpageblock."""
    if policy[P.evacuate_requests]:
        z.ev[Ev.REQUESTS] |= REQ_EVACUATE_CLAIM
        z.ev[Ev.EVACUATE_ORDER] = order
    if policy[P.shrink_requests]:
        z.ev[Ev.REQUESTS] |= REQ_SHRINK_CLAIM


@kernel
def claim_in_category(z, policy, order, mt, flags, i):
    """Claim in the i-th category, the largest block first, or -1."""
    category = search_category(mt, i)
    low = rate_claim_order(z, policy, order, mt, flags, i == 0)
    for high in range(MAX_ORDER, low - 1, -1):
        if mt == MOVABLE and high < PB_ORDER // 2:
            return -1
        mt_a, mt_b = fallback_of(mt, 0), fallback_of(mt, 1)
        rung = Outcome.CLAIM_FALLBACK_PREFERRED + i
        spb, other = find_in_category(z, policy, category, high, mt, mt_a, mt_b, rung)
        if spb < 0:
            continue
        if mt != MOVABLE and i > 0:
            queue_claim_requests(z, policy, order)
        pfn = claim_block(z, policy, first_block(z, spb, high, other), high, order, mt, other)
        if pfn >= 0:
            tally_steal(z, mt, other)
            trace_extfrag(z, pfn, order, high, mt, other)
            return pfn
    return -1


@kernel
def claim_by_category(z, policy, order, mt, flags):
    """Turn a foreign pageblock in category order, or -1 (__rmqueue_claim)."""
    for i in range(NR_SEARCHED):
        pfn = claim_in_category(z, policy, order, mt, flags, i)
        if pfn >= 0:
            z.ev[Ev.OUTCOME] = Outcome.CLAIM_FALLBACK_PREFERRED + i
            return pfn
    return -1


@kernel
def steal_by_category(z, policy, order, mt):
    """Take one block of another type in category order, the smallest first, or -1 (__rmqueue_steal)."""
    mt_a = fallback_of(mt, 0)
    mt_b = fallback_of(mt, 1)
    if mt != MOVABLE and policy[P.separate_nonmovable]:
        mt_a = MOVABLE
        mt_b = MOVABLE
    for i in range(NR_SEARCHED):
        category = search_category(mt, i)
        for high in range(order, MAX_ORDER + 1):
            spb, other = find_in_category(z, policy, category, high, mt, mt_a, mt_b, Outcome.STEAL_FALLBACK)
            if spb >= 0:
                z.ev[Ev.OUTCOME] = Outcome.STEAL_FALLBACK
                tally_pollute(z, mt, other)
                pfn = take_first(z, spb, high, order, other)
                trace_extfrag(z, pfn, order, high, mt, other)
                return pfn
    return -1
