"""Claiming: turning pageblocks of another type into one's own, whole or in part.

The mainline request and the superpageblock ladder share these verbs and decide themselves who may claim and
where to look. Mirrors try_to_claim_block; the 50 % rule and the separation of unmovable from
reclaimable follow docs/spec/exact.md B.4.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLAIM_SCAN_LIMIT,
    CLAIMED_AT,
    CLAIMED_MOST,
    MAX_ORDER,
    MOVABLE,
    NR_REQUEST_MT,
    PB_ORDER,
    PB_PAGES,
    REQ_BOOST,
    REQ_EVACUATE_CLAIMED,
    TAINTED,
    C,
    Ev,
    P,
)
from spbfast.jit.decorators import ctz, inline_kernel, kernel
from spbfast.model.allocator.buddy import expand, is_free_buddy, take_first
from spbfast.model.allocator.freelist import add_to_free_list, del_from_free_list, first_block
from spbfast.model.allocator.pfn import list_of, set_of, spb_of
from spbfast.model.allocator.pick import order_mask, other_nonmovable
from spbfast.model.allocator.record import trace_refused
from spbfast.model.allocator.resting import release_pageblock
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import account_pages, category_of_list
from spbfast.model.state.page_state import (
    CODE_MOVABLE,
    CODE_PINNED,
    block_order,
    code_of,
    is_free_head,
    next_of,
    state_at,
)
from spbfast.model.state.trace import Refused


@kernel
def nr_lru(z, pb):
    """Pages of a pageblock in movable blocks that could be migrated."""
    pfn = pb << PB_ORDER
    end = pfn + PB_PAGES
    nr = 0
    while pfn < end:
        state = state_at(z.page, pfn)
        order = block_order(state)
        if order < 0:
            pfn += 1
            continue
        if not is_free_head(state) and (code_of(state) == CODE_MOVABLE or code_of(state) == CODE_PINNED):
            nr += 1 << order
        pfn += 1 << order
    return nr


@kernel
def claim_whole(z, pfn, high, low, mt, from_mt):
    """Relabel all pageblocks of a free block of order 9 or 10 and take its lowest 2**low pages."""
    del_from_free_list(z, pfn, high, from_mt)
    pb = pfn >> PB_ORDER
    for i in range(pb, pb + (1 << (high - PB_ORDER))):
        z.pb.label[i] = mt
    expand(z, pfn, high, low, mt)
    account_pages(z, pfn, -(1 << low))
    return pfn


@inline_kernel
def is_mixing_refused(z, policy, pb, mt, label):
    """Whether `separate_nonmovable` forbids turning this partly used pageblock to `mt`."""
    if mt == MOVABLE or not policy[P.separate_nonmovable] or not policy[P.superpageblocks]:
        return False
    if label != MOVABLE:
        return True
    return policy[P.separate_by_content] and (z.pb.bits[pb] >> other_nonmovable(mt)) & 1 != 0


@inline_kernel
def is_threshold_waived(z, policy, pfn, mt):
    """Whether half of the pageblock need not be compatible: non-movable claims inside tainted ones."""
    if mt == MOVABLE or not policy[P.superpageblocks] or policy[P.tainted_claim_needs_half]:
        return False
    return category_of_list(z.spb.list[spb_of(z.geo, pfn)]) == TAINTED


@inline_kernel
def nr_used(z, pb):
    """Pages of a pageblock that are in use."""
    nr = 0
    for mt in range(NR_REQUEST_MT):
        nr += np.int64(z.pb.used[pb, mt])
    return nr


@inline_kernel
def is_half(used, movable, mt, label):
    """Whether free pages and pages like the requester's are half of a pageblock with `used` pages in use."""
    alike = 0
    if mt == MOVABLE:
        alike = movable
    elif label == MOVABLE:
        alike = used - movable
    return 2 * (PB_PAGES - used + alike) >= PB_PAGES


@kernel
def is_half_compatible(z, policy, pb, mt, label):
    """Whether free pages and pages like the requester's fill at least half of a pageblock.

    Mainline counts as movable what is on the LRU: not what rests on per-CPU lists or has not left a bulk
    call. Their total bounds the difference; only where it decides are pages looked at, which took a
    third of the time of the throughput trace.
    """
    used = nr_used(z, pb)
    movable = np.int64(z.pb.used[pb, MOVABLE])
    result = is_half(used, movable, mt, label)
    off_lru = z.count[C.PCP_PAGES] + z.ev[Ev.OFF_LRU]
    if policy[P.superpageblocks] or result == is_half(used, max(movable - off_lru, 0), mt, label):
        return result
    return is_half(used, nr_lru(z, pb), mt, label)


@kernel
def move_free_blocks(z, pb, from_mt, mt):
    """Move a pageblock's free blocks, ascending, to the tails of another type's lists; relabel it."""
    pfn = pb << PB_ORDER
    end = pfn + PB_PAGES
    while pfn < end:
        state = state_at(z.page, pfn)
        order = block_order(state)
        if order < 0:
            pfn += 1
            continue
        if is_free_head(state):
            del_from_free_list(z, pfn, order, from_mt)
            add_to_free_list(z, pfn, order, mt, True)
        pfn += 1 << order
    z.pb.label[pb] = mt


@kernel
def whole_block_order(z, pb):
    """Order of the free block that covers a pageblock, or -1."""
    for order in range(PB_ORDER, MAX_ORDER + 1):
        if is_free_buddy(z, (pb << PB_ORDER) & -(1 << order), order):
            return order
    return -1


@kernel
def find_refusal(z, policy, pfn, mt, label):
    """Why the partly used pageblock of free block `pfn` may not be claimed, or -1."""
    pb = pfn >> PB_ORDER
    if (pb << PB_ORDER) < z.geo.lo or ((pb + 1) << PB_ORDER) > z.geo.hi:
        return Refused.ZONE_BOUNDARY
    if is_mixing_refused(z, policy, pb, mt, label):
        return Refused.CROSS_TYPE_NOT_FREE
    if not is_threshold_waived(z, policy, pfn, mt) and not is_half_compatible(z, policy, pb, mt, label):
        return Refused.INSUFFICIENT_COMPAT
    return -1


@kernel
def release_claimed(z, policy, pb):
    """The owner of a pageblock about to be claimed in part gives it up; order of the whole block it became.

    Model: a relabelled pageblock loses its owner, and what rests of it comes along.
    """
    release_pageblock(z, policy, pb)
    if z.geo.set_mask == 0:
        # The request may be served elsewhere, and settles only that superpageblock.
        settle(z, policy, pb << PB_ORDER)
    return whole_block_order(z, pb)


@kernel
def name_claimed(z, pb):
    """Ask for what is left movable in a claimed pageblock to be moved out; beyond the room only counted."""
    nr = z.ev[Ev.NR_CLAIMED]
    if nr < CLAIMED_MOST:
        z.scratch[CLAIMED_AT + nr] = pb
    z.ev[Ev.NR_CLAIMED] = nr + 1
    z.ev[Ev.REQUESTS] |= REQ_EVACUATE_CLAIMED


@kernel
def find_near_tainted(z, order, mt):
    """The first of a list's first entries that lies in a tainted superpageblock, else its head.

    For one set of lists, which is not empty (v1 12).
    """
    pfn = next_of(z.page, z.geo.list0 + list_of(0, order, mt))
    for _ in range(CLAIM_SCAN_LIMIT):
        if pfn >= z.geo.nr_pages:
            break
        if category_of_list(z.spb.list[spb_of(z.geo, pfn)]) == TAINTED:
            return pfn
        pfn = next_of(z.page, pfn)
    return first_block(z, 0, order, mt)


@kernel
def claim_partial(z, policy, pfn, low, mt):
    """Claim the partly used pageblock of free block `pfn` and take 2**low pages from its set, or -1.

    With `watermark_boost` the attempt alone asks for higher watermarks, as in try_to_claim_block.
    """
    if policy[P.watermark_boost]:
        z.ev[Ev.REQUESTS] |= REQ_BOOST
        z.ev[Ev.NR_BOOSTS] += 1
    pb = pfn >> PB_ORDER
    label = np.int64(z.pb.label[pb])
    reason = find_refusal(z, policy, pfn, mt, label)
    if reason >= 0:
        trace_refused(z, pfn, mt, label, reason)
        return -1
    if policy[P.pcp_owned_pageblocks] and z.pb.owner[pb]:
        high = release_claimed(z, policy, pb)
        if high >= 0:
            return claim_whole(z, (pb << PB_ORDER) & -(1 << high), high, low, mt, label)
    move_free_blocks(z, pb, label, mt)
    if policy[P.claim_evacuation] and mt != MOVABLE and label == MOVABLE and z.pb.used[pb, MOVABLE] > 0:
        name_claimed(z, pb)
    set_ = set_of(z.geo, pfn)
    return take_first(z, set_, ctz(order_mask(z, set_, mt) >> low << low), low, mt)


@kernel
def claim_block(z, policy, pfn, high, low, mt, from_mt):
    """Claim the free block `pfn` of list (high, from_mt): whole from order 9 up, else in part."""
    if high >= PB_ORDER:
        return claim_whole(z, pfn, high, low, mt, from_mt)
    return claim_partial(z, policy, pfn, low, mt)
