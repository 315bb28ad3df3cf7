"""The superpageblock ladder: one short function a rung (docs/spec/exact.md B.5 and B.6).

Rungs in order: take from the preferred category; for unmovable and reclaimable requests claim whole,
claim partial, borrow from the other non-movable type, borrow from movable, all inside tainted
superpageblocks; take an empty superpageblock; let movable into tainted; then claim and steal across
categories. Work that a request should trigger is only recorded, in `Ev.REQUESTS`.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_HIGHORDER_OPTIONAL,
    ALLOC_NOFRAG_TAINTED_OK,
    ALLOC_NOFRAGMENT,
    CLEAN,
    EMPTY,
    LIST_TAINTED,
    MAX_ORDER,
    MOVABLE,
    NR_BUCKETS,
    PB_ORDER,
    REQ_DEFRAG_BEFORE_EMPTY,
    REQ_EVACUATE_FALLTHROUGH,
    REQ_SHRINK_FALLTHROUGH,
    TAINTED,
    C,
    Ev,
    Outcome,
    P,
)
from spbfast.jit.decorators import ctz, inline_kernel, kernel
from spbfast.model.allocator.buddy import take_first
from spbfast.model.allocator.choose import choose_first, count_search, count_visits, find_next
from spbfast.model.allocator.claim import claim_partial, claim_whole
from spbfast.model.allocator.freelist import first_block, has_block
from spbfast.model.allocator.pick import (
    BOTH,
    find_own_order,
    is_live,
    order_mask,
    other_nonmovable,
)
from spbfast.model.allocator.record import tally_pollute, tally_steal, trace_fall_through
from spbfast.model.allocator.spb import (
    category_of_list,
    needs_defrag,
    queue_defrag,
    rate_reserve,
)


@inline_kernel
def take_own(z, spb, order, mt, whole_first):
    """Take from a superpageblock's own-type lists, which can serve."""
    high = find_own_order(order_mask(z, spb, mt), order, BOTH, whole_first)
    return take_first(z, spb, high, order, mt)


@inline_kernel
def walk_preferred(z, policy, order, mt, category):
    """Superpageblock of the preferred category that serves from own-type lists, or -1."""
    if not policy[P.per_superpageblock_take] and order < PB_ORDER:
        # Two walks: whole pageblocks anywhere first, then fragments.
        spb, visited = choose_first(z, policy, category, mt, PB_ORDER)
        count_visits(z, Outcome.TAKE_PREFERRED, visited, Ev.VISITED)
        if spb >= 0:
            return spb
    spb, visited = choose_first(z, policy, category, mt, order)
    count_visits(z, Outcome.TAKE_PREFERRED, visited, Ev.VISITED)
    return spb


@inline_kernel
def find_hint(z, policy, order, mt, category):
    """The superpageblock that last served (order, mt) if it is still of the right category, or -1."""
    if not policy[P.preferred_hint]:
        return np.int64(-1)
    spb = np.int64(z.index.hint[order, mt])
    if spb >= 0 and category_of_list(z.spb.list[spb]) == category and order_mask(z, spb, mt) >> order:
        z.count[C.HINTS_USED] += 1
        return spb
    return np.int64(-1)


@inline_kernel
def find_preferred(z, policy, order, mt, category):
    """What serves the rung take_preferred: (superpageblock or -1, whether its whole pageblocks go first)."""
    whole_first = policy[P.whole_pageblock_first] != 0
    spb = find_hint(z, policy, order, mt, category)
    if spb < 0:
        spb = walk_preferred(z, policy, order, mt, category)
        # Two walks: what the first one finds has whole pageblocks, which it looked for.
        whole_first = whole_first or policy[P.per_superpageblock_take] == 0
    return spb, whole_first


@inline_kernel
def remember_preferred(z, policy, order, mt, spb):
    """Keep the superpageblock that served (order, mt) as the hint for the next such request."""
    if policy[P.preferred_hint]:
        z.index.hint[order, mt] = spb


@inline_kernel
def take_found(z, policy, spb, order, mt, whole_first):
    """Take from the superpageblock that `find_preferred` named."""
    remember_preferred(z, policy, order, mt, spb)
    z.ev[Ev.OUTCOME] = Outcome.TAKE_PREFERRED
    return take_own(z, spb, order, mt, whole_first)


@inline_kernel
def take_preferred(z, policy, order, mt, category):
    """Rung take_preferred: own-type lists of the preferred category, fullest first, or -1."""
    spb, whole_first = find_preferred(z, policy, order, mt, category)
    return take_found(z, policy, spb, order, mt, whole_first) if spb >= 0 else np.int64(-1)


@kernel
def look_at_tainted(z, policy):
    """Fill the walk memory: did a tainted superpageblock have free pageblocks, was one below reserve."""
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        for slot in range(z.index.tail[lst]):
            if not is_live(z.index, lst, slot):
                continue
            spb = np.int64(z.index.spb[lst, slot])
            if z.spb.nr_free_pb[spb] > 0:
                z.ev[Ev.SAW_FREE_PB] = 1
            if z.spb.nr_free_pb[spb] < rate_reserve(policy, np.int64(z.spb.total[spb])):
                z.ev[Ev.SAW_BELOW] = 1
            if z.ev[Ev.SAW_FREE_PB] and z.ev[Ev.SAW_BELOW]:
                return


@kernel
def claim_whole_in_tainted(z, policy, order, mt):
    """Rung claim_whole_pageblock: a movable whole pageblock of a tainted superpageblock, or -1."""
    low = max(order, PB_ORDER)
    spb, visited = choose_first(z, policy, TAINTED, MOVABLE, low)
    count_visits(z, Outcome.CLAIM_WHOLE_PAGEBLOCK, visited, Ev.VISITED)
    if spb < 0:
        return -1
    high = low + ctz(order_mask(z, spb, MOVABLE) >> low)
    return claim_whole(z, first_block(z, spb, high, MOVABLE), high, order, mt, MOVABLE)


@kernel
def claim_partial_of(z, policy, spb, order, mt):
    """Try the head of each movable fragment list of a superpageblock, largest first, or -1."""
    for high in range(PB_ORDER - 1, order - 1, -1):
        if has_block(z, spb, high, MOVABLE):
            pfn = claim_partial(z, policy, first_block(z, spb, high, MOVABLE), order, mt)
            if pfn >= 0:
                return pfn
    return -1


@kernel
def claim_partial_in_tainted(z, policy, order, mt):
    """Rung claim_partial_pageblock: a pageblock with movable fragments, or -1."""
    looked = 0
    pfn = np.int64(-1)
    place, spb = find_next(z, policy, TAINTED, MOVABLE, MOVABLE, order, 0)
    while place >= 0:
        looked += 1
        pfn = claim_partial_of(z, policy, spb, order, mt)
        if pfn >= 0:
            break
        place, spb = find_next(z, policy, TAINTED, MOVABLE, MOVABLE, order, place + 1)
    # A claim changes no category or bucket before the request settles: ranks hold.
    count_search(z, policy, TAINTED, place, looked, Outcome.CLAIM_PARTIAL_PAGEBLOCK)
    return pfn


@kernel
def borrow_in_tainted(z, policy, order, mt, rung):
    """Rungs borrow_*: a fragment of another type, which keeps the rest and the label, or -1."""
    below = (1 << PB_ORDER) - 1
    looked = 0
    orders = 0
    place, spb = find_next(z, policy, TAINTED, mt, mt, order, 0)
    while place >= 0:
        looked += 1
        orders = (order_mask(z, spb, mt) & below) >> order
        if orders:
            break
        place, spb = find_next(z, policy, TAINTED, mt, mt, order, place + 1)
    count_search(z, policy, TAINTED, place, looked, rung)
    return take_first(z, spb, order + ctz(orders), order, mt) if place >= 0 else np.int64(-1)


@kernel
def queue_defrag_all(z, policy):
    """Ask to defragment every tainted superpageblock that needs it."""
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        for slot in range(z.index.tail[lst]):
            if is_live(z.index, lst, slot):
                spb = np.int64(z.index.spb[lst, slot])
                if needs_defrag(z, policy, spb):
                    queue_defrag(z, spb, REQ_DEFRAG_BEFORE_EMPTY)


@kernel
def queue_before_empty(z, policy, order, mt):
    """The tainted pool could not serve: record the work that might let it serve the next one."""
    trace_fall_through(z, order, mt)
    if policy[P.defrag_before_empty]:
        queue_defrag_all(z, policy)
    if z.ev[Ev.SAW_BELOW]:
        if policy[P.evacuate_requests]:
            z.ev[Ev.REQUESTS] |= REQ_EVACUATE_FALLTHROUGH
            z.ev[Ev.EVACUATE_ORDER] = order
        if policy[P.shrink_requests]:
            z.ev[Ev.REQUESTS] |= REQ_SHRINK_FALLTHROUGH


@kernel
def take_from_tainted(z, policy, order, mt, flags):
    """The rungs by which an unmovable or reclaimable request stays inside the tainted pool, or -1."""
    strict = flags & ALLOC_NOFRAGMENT and not flags & ALLOC_NOFRAG_TAINTED_OK
    gated = policy[P.nofragment_blocks_tainted_claim] and strict
    if policy[P.claim_whole_pageblock] and not gated:
        pfn = claim_whole_in_tainted(z, policy, order, mt)
        if pfn >= 0:
            z.ev[Ev.OUTCOME] = Outcome.CLAIM_WHOLE_PAGEBLOCK
            tally_steal(z, mt, MOVABLE)
            return pfn
    if order >= PB_ORDER:
        return -1
    if policy[P.claim_partial_pageblock] and not gated:
        pfn = claim_partial_in_tainted(z, policy, order, mt)
        if pfn >= 0:
            z.ev[Ev.OUTCOME] = Outcome.CLAIM_PARTIAL_PAGEBLOCK
            tally_steal(z, mt, MOVABLE)
            return pfn
    if policy[P.borrow_nonmovable]:
        pfn = borrow_in_tainted(z, policy, order, other_nonmovable(mt), Outcome.BORROW_NONMOVABLE)
        if pfn >= 0:
            z.ev[Ev.OUTCOME] = Outcome.BORROW_NONMOVABLE
            tally_pollute(z, mt, other_nonmovable(mt))
            return pfn
    if policy[P.borrow_movable]:
        pfn = borrow_in_tainted(z, policy, order, MOVABLE, Outcome.BORROW_MOVABLE)
        if pfn >= 0:
            z.ev[Ev.OUTCOME] = Outcome.BORROW_MOVABLE
            tally_pollute(z, mt, MOVABLE)
            return pfn
    return -1


@inline_kernel
def is_empty_skipped(z, policy, mt, flags):
    """Whether a non-movable request must not open an empty superpageblock."""
    if mt == MOVABLE:
        return False
    if policy[P.nofragment_blocks_empty] and flags & ALLOC_NOFRAGMENT:
        return True
    optional = policy[P.optional_skips_empty] and flags & ALLOC_HIGHORDER_OPTIONAL
    return optional and z.ev[Ev.SAW_FREE_PB] != 0


@kernel
def take_empty(z, policy, order, mt):
    """Rung take_empty_superpageblock: own-type or, for non-movable, claimed whole blocks, or -1."""
    low = max(order, PB_ORDER)
    place, spb = find_next(z, policy, EMPTY, mt, MOVABLE, low, 0)
    count_search(z, policy, EMPTY, place, 1 if place >= 0 else 0, Outcome.TAKE_EMPTY_SUPERPAGEBLOCK)
    if place < 0:
        return np.int64(-1)
    for high in range(low, MAX_ORDER + 1):
        if has_block(z, spb, high, mt):
            return take_first(z, spb, high, order, mt)
        if mt != MOVABLE and has_block(z, spb, high, MOVABLE):
            tally_steal(z, mt, MOVABLE)
            return claim_whole(z, first_block(z, spb, high, MOVABLE), high, order, mt, MOVABLE)
    return np.int64(-1)


@kernel
def take_movable_into_tainted(z, policy, order):
    """Rung movable_into_tainted: own-type lists of tainted superpageblocks above their reserve, or -1."""
    looked = 0
    place, spb = find_next(z, policy, TAINTED, MOVABLE, MOVABLE, order, 0)
    while place >= 0:
        looked += 1
        if z.spb.nr_free_pb[spb] > rate_reserve(policy, np.int64(z.spb.total[spb])):
            break
        place, spb = find_next(z, policy, TAINTED, MOVABLE, MOVABLE, order, place + 1)
    count_search(z, policy, TAINTED, place, looked, Outcome.MOVABLE_INTO_TAINTED)
    return take_own(z, spb, order, MOVABLE, policy[P.whole_pageblock_first]) if place >= 0 else np.int64(-1)


@kernel
def rmqueue_beyond_preferred(z, policy, order, mt, flags):
    """The rungs of Smallest after take_preferred, or -1."""
    if mt != MOVABLE:
        look_at_tainted(z, policy)
        pfn = take_from_tainted(z, policy, order, mt, flags)
        if pfn >= 0:
            return pfn
        queue_before_empty(z, policy, order, mt)
    if not is_empty_skipped(z, policy, mt, flags):
        pfn = take_empty(z, policy, order, mt)
        if pfn >= 0:
            z.ev[Ev.OUTCOME] = Outcome.TAKE_EMPTY_SUPERPAGEBLOCK
            return pfn
    if mt == MOVABLE and policy[P.movable_into_tainted]:
        pfn = take_movable_into_tainted(z, policy, order)
        if pfn >= 0:
            z.ev[Ev.OUTCOME] = Outcome.MOVABLE_INTO_TAINTED
            return pfn
    return -1


@inline_kernel
def rmqueue_smallest(z, policy, order, mt, flags):
    """All ordered attempts short of claim and steal, or -1 (__rmqueue_smallest)."""
    pfn = take_preferred(z, policy, order, mt, CLEAN if mt == MOVABLE else TAINTED)
    if pfn < 0:
        pfn = rmqueue_beyond_preferred(z, policy, order, mt, flags)
    return pfn
