"""Compaction of a zone by two scanners that go towards each other: a run from its conditions to its end.

Source: mm/compaction.c as of Linux 6.6, compact_zone, __compact_finished, compaction_suit_allocation_order,
compaction_suitable, compaction_alloc. Model: nothing runs beside a run, so it is never contended and nobody
reschedules; the local CPU's lists are not drained; a run ends with the block that it frees (capture), which
the attempt that follows takes from the free lists; folios of the page cache that find no place stay, where
the kernel splits them.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLEAN,
    CMA,
    COSTLY_ORDER,
    EMPTY,
    MAX_ORDER,
    MOVABLE,
    NR_MT,
    PB_ORDER,
    TAINTED,
    C,
    Ev,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.barred import rate_barred
from spbfast.model.allocator.choose import find_next
from spbfast.model.allocator.mainline import find_suitable_fallback
from spbfast.model.allocator.migrate import account_target, is_busy_thrice, move_block
from spbfast.model.allocator.pfn import list_of
from spbfast.model.allocator.pick import order_mask
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.allocator.spb import rate_reserve
from spbfast.model.state.compact_layout import FIRST_OF_RUN, Cc
from spbfast.model.state.node import N
from spbfast.model.state.page_state import order_of, state_at
from spbfast.model.state.trace import Cause
from spbfast.model.state.vmstat import V, Vo
from spbfast.model.workers.compact_cursors import (
    first_in_pageblock,
    forget_skips,
    has_met,
    is_pageblock_start,
    set_cursors_to_ends,
    set_scanners,
)
from spbfast.model.workers.compact_deferral import is_restarting
from spbfast.model.workers.compact_places import release_places
from spbfast.model.workers.compact_search import take_place
from spbfast.model.workers.compact_sources import isolate_sources
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests

# enum compact_result, as far as it makes a difference here.
RUN_SKIPPED, RUN_GOES_ON, RUN_MET, RUN_ENDED, RUN_SUCCEEDED = range(5)
EXTFRAG_THRESHOLD = 500  # sysctl_extfrag_threshold


# --- what a run is for -----------------------------------------------------------------------------


@kernel
def has_usable_movable(z, policy, order):
    """With superpageblocks: whether a movable request finds a block of its type that it may take."""
    place, _ = find_next(z, policy, CLEAN, MOVABLE, MOVABLE, order, 0)
    if place >= 0:
        return True
    place, _ = find_next(z, policy, EMPTY, MOVABLE, MOVABLE, max(order, PB_ORDER), 0)
    if place >= 0 or not policy[P.movable_into_tainted]:
        return place >= 0
    place, spb = find_next(z, policy, TAINTED, MOVABLE, MOVABLE, order, 0)
    while place >= 0:
        if z.spb.nr_free_pb[spb] > rate_reserve(policy, np.int64(z.spb.total[spb])):
            return True
        place, spb = find_next(z, policy, TAINTED, MOVABLE, MOVABLE, order, place + 1)
    return False


@kernel
def has_usable_block(z, policy, order, mt):
    """Whether a request of type mt finds a block of at least `order` (the end of __compact_finished).

    On one set of lists also where it may claim a block of another type: movable requests only half a
    pageblock and more (find_suitable_fallback). Model: with superpageblocks unmovable and reclaimable
    requests look in tainted ones, for their type or a whole movable pageblock.
    """
    if z.geo.set_mask == 0 and not policy[P.superpageblocks]:
        if order_mask(z, 0, mt) >> order or (mt == MOVABLE and order_mask(z, 0, CMA) >> order):
            return True
        for high in range(max(order, PB_ORDER // 2 if mt == MOVABLE else 0), MAX_ORDER + 1):
            if find_suitable_fallback(z, high, mt) >= 0:
                return True
        return False
    if mt == MOVABLE:
        return has_usable_movable(z, policy, order)
    place, _ = find_next(z, policy, TAINTED, mt, mt, order, 0)
    if place < 0 and policy[P.claim_whole_pageblock]:
        place, _ = find_next(z, policy, TAINTED, MOVABLE, MOVABLE, max(order, PB_ORDER), 0)
    return place >= 0


@inline_kernel
def nr_usable(w, policy):
    """Free pages that count for the watermarks of compaction."""
    count = w.zone.count
    return count[C.FREE_PAGES] - count[C.FREE_HIGHATOMIC] - rate_barred(w, policy, np.int64(MOVABLE))


@kernel
def is_served(w, policy, order, mt):
    """Whether the request could be served already (zone_watermark_ok at min).

    Model: with superpageblocks not asked for unmovable and reclaimable requests, which may be barred from
    what is there.
    """
    if policy[P.superpageblocks] and mt != MOVABLE:
        return False
    mark = w.node.conf[N.WMARK_MIN] + w.zone.count[C.WATERMARK_BOOST]
    return nr_usable(w, policy) - ((1 << order) - 1) > mark and has_usable_block(w.zone, policy, order, mt)


@kernel
def rate_fragmentation(z, order):
    """The fragmentation index of an order: -1000 with a block large enough; 0 no memory, 1000 pieces only."""
    free, blocks = np.int64(0), np.int64(0)
    for set_ in range(z.area.mask.shape[0] // NR_MT):
        for mt in range(NR_MT):
            if order_mask(z, set_, mt) >> order:
                return np.int64(-1000)
            for low in range(order):
                nr = np.int64(z.area.nr[list_of(set_, low, mt)])
                blocks += nr
                free += nr << low
    if blocks == 0:
        return np.int64(0)
    return 1000 - (1000 + free * 1000 // (1 << order)) // blocks


@kernel
def is_suitable(w, policy, order):
    """Whether there are pages to migrate to, and fragmentation is to blame (compaction_suitable)."""
    mark = w.node.conf[N.WMARK_LOW if order > COSTLY_ORDER else N.WMARK_MIN]
    mark += w.zone.count[C.WATERMARK_BOOST] + (2 << order)  # compact_gap
    if nr_usable(w, policy) <= mark:
        return False
    if order <= COSTLY_ORDER:
        return True
    index = rate_fragmentation(w.zone, order)
    return index < 0 or index > EXTFRAG_THRESHOLD


# --- a run -----------------------------------------------------------------------------------------


@kernel
def rate_run(w, policy):
    """How a run stands before its next cluster: RUN_GOES_ON, RUN_MET or RUN_SUCCEEDED."""
    cc = w.node.compact
    if has_met(cc):
        return RUN_MET
    # A pageblock that was begun is finished, so that it is as free as can be.
    if not is_pageblock_start(cc[Cc.MIGRATE]):
        return RUN_GOES_ON
    if has_usable_block(w.zone, policy, cc[Cc.ORDER], cc[Cc.MT]):
        return RUN_SUCCEEDED
    return RUN_GOES_ON


@kernel
def migrate_picked(w, policy):
    """Migrate what was isolated, the last first; (blocks that stayed, whether places ran out)."""
    z, node = w.zone, w.node
    cc = node.compact
    nr = cc[Cc.NR_PICKED]
    stayed = np.int64(0)
    for i in range(nr):
        pfn = node.picked[nr - 1 - i]
        if is_busy_thrice(z, pfn):
            stayed += 1
            continue
        order = order_of(state_at(z.page, pfn))
        place = take_place(w, policy, order)
        if place < 0:
            z.ev[Ev.FAILED_MOVES] += 1
            if order == 0:
                return nr - i + stayed, True
            stayed += 1
            continue
        move_block(z, policy, pfn, order, account_target(z, policy, place, order))
    return stayed, False


@inline_kernel
def may_capture(z, cc):
    """Whether a block freed in the pageblock being emptied goes to the requester (compaction_capture)."""
    if not cc[Cc.DIRECT]:
        return False
    label = np.int64(z.pb.label[(cc[Cc.MIGRATE] - 1) >> PB_ORDER])
    return cc[Cc.ORDER] >= PB_ORDER or cc[Cc.MT] == MOVABLE or label != MOVABLE


@kernel
def compact_cluster(w, policy):
    """Isolate and migrate a cluster; where a page stays, the rest of its pageblock too; the result."""
    cc = w.node.compact
    while True:
        if not isolate_sources(w, policy):
            if cc[Cc.SYNCS_CACHED]:
                cc[Cc.CACHED_MIGRATE_SYNC] = cc[Cc.CACHED_MIGRATE_ASYNC]
            return RUN_GOES_ON
        cc[Cc.SYNCS_CACHED] = 0
        cc[Cc.LAST] = first_in_pageblock(cc[Cc.MIGRATE] - 1)
        stayed, is_short = migrate_picked(w, policy)
        cc[Cc.NR_PICKED] = 0
        cc[Cc.NR_MIGRATE] = 0
        if is_short and not has_met(cc):
            return RUN_ENDED
        if stayed == 0 or is_pageblock_start(cc[Cc.MIGRATE]) or cc[Cc.FORCED] or cc[Cc.FINISH]:
            break
        cc[Cc.FINISH] = 1
    if may_capture(w.zone, cc) and has_usable_block(w.zone, policy, cc[Cc.ORDER], cc[Cc.MT]):
        return RUN_SUCCEEDED
    return RUN_GOES_ON


@kernel
def run_scanners(w, policy):
    """Clusters until the run has its block, the scanners meet or places run out; its result."""
    cc = w.node.compact
    while True:
        result = rate_run(w, policy)
        if result == RUN_MET:
            set_cursors_to_ends(w.zone, cc)
            if cc[Cc.DIRECT]:
                cc[Cc.BLOCKSKIP_FLUSH] = 1
        if result != RUN_GOES_ON:
            return result
        cc[Cc.FINISH] = 1 if cc[Cc.LAST] == first_in_pageblock(cc[Cc.MIGRATE]) else 0
        result = compact_cluster(w, policy)
        if result != RUN_GOES_ON:
            return result
        if cc[Cc.LAST] < cc[Cc.MIGRATE] >> cc[Cc.ORDER] << cc[Cc.ORDER]:
            cc[Cc.LAST] = -1


@kernel
def end_run(w, policy):
    """Give back places, count, forget the control; pageblocks that pages came from."""
    node = w.node
    cc = node.compact
    release_places(w, policy)
    node.vm[V.COMPACT_MIGRATE_SCANNED] += cc[Cc.MIGRATE_SCANNED]
    node.vm[V.COMPACT_FREE_SCANNED] += cc[Cc.FREE_SCANNED]
    node.vm[Vo.COMPACT_ISOLATED] += cc[Cc.ISOLATED]
    if not cc[Cc.DIRECT]:
        node.vm[Vo.COMPACT_DAEMON_MIGRATE_SCANNED] += cc[Cc.MIGRATE_SCANNED]
        node.vm[Vo.COMPACT_DAEMON_FREE_SCANNED] += cc[Cc.FREE_SCANNED]
    sources = cc[Cc.SOURCES]
    cc[FIRST_OF_RUN:] = 0
    return sources


@kernel
def compact_zone(w, policy, order, mt, is_sync, is_direct, is_forced):
    """Compact the zone for a block of `order` of type mt; (result, pageblocks that pages came from, ns).

    `is_forced`: the whole zone, whatever was skipped before (COMPACT_PRIO_SYNC_FULL).
    """
    z, node = w.zone, w.node
    cc = node.compact
    if is_served(w, policy, order, mt):
        return RUN_SUCCEEDED, np.int64(0), np.int64(0)
    if not is_suitable(w, policy, order):
        return RUN_SKIPPED, np.int64(0), np.int64(0)
    begin_event(z, 0)
    z.ev[Ev.CAUSE] = Cause.COMPACTION
    cc[Cc.ORDER] = order
    cc[Cc.MT] = mt
    cc[Cc.SYNC] = 1 if is_sync else 0
    cc[Cc.DIRECT] = 1 if is_direct else 0
    cc[Cc.FORCED] = 1 if is_forced else 0
    cc[Cc.LAST] = -1
    cc[Cc.SEARCH_ORDER] = order
    if is_restarting(node, order):
        forget_skips(z, node)
    set_scanners(z, cc)
    is_equal = cc[Cc.CACHED_MIGRATE_ASYNC] == cc[Cc.CACHED_MIGRATE_SYNC]
    cc[Cc.SYNCS_CACHED] = 1 if is_equal and not is_sync else 0
    result = run_scanners(w, policy)
    sources = end_run(w, policy)
    z.ev[Ev.CAUSE] = 0
    cost = account_moves(w)
    defer_requests(w, policy, MOVABLE)
    return result, sources, cost


@kernel
def forget_skips_when_asleep(w):
    """kswapd goes to sleep: it forgets skip bits, if a full run ended since (reset_isolation_suitable)."""
    if w.node.conf[N.COMPACT_SCANNERS]:
        forget_skips(w.zone, w.node)
