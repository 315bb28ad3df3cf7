"""Compaction on behalf of a THP fault: empty one pageblock of movable pages, bounded in tries and rate.

Model (machine.md 1.6): a cursor goes over the zone's pageblocks; of the movable ones in use in
clean superpageblocks, up to `compact_candidates` are tried, and all faults together get `compact_rate` a
second. The kernel's two scanners, its deferral and its capture are not modelled.
"""

from __future__ import annotations

from spbfast._jit import inline_kernel, kernel
from spbfast.allocator.migrate import evacuate_pageblock
from spbfast.allocator.request import begin_event
from spbfast.allocator.spb import category_of_list
from spbfast.constants import CLEAN, MOVABLE, PB_ORDER, RECLAIMABLE, UNMOVABLE, Ev
from spbfast.state.node import N, Now, V
from spbfast.workers.defer import defer_requests
from spbfast.workers.due import account_moves

SCAN_MOST = 2048  # pageblocks that one fault looks at
PASSES = 3  # over a pageblock, for pages that were busy; migrate_pages makes up to 10


@inline_kernel
def is_compactable(z, pb):
    """Whether emptying a pageblock by migration may be possible: clean, movable and in use."""
    spb = pb >> (z.geo.spb_shift - PB_ORDER)
    if z.spb.list[spb] < 0 or category_of_list(z.spb.list[spb]) != CLEAN or z.pb.label[pb] != MOVABLE:
        return False
    if z.pb.used[pb, UNMOVABLE] or z.pb.used[pb, RECLAIMABLE]:
        return False
    return z.pb.used[pb, MOVABLE] > 0


@kernel
def compact_pageblock(z, policy, node, shrink, pb):
    """Try to empty one pageblock; 1 if it is free now."""
    for _ in range(PASSES):
        begin_event(z, 0)
        evacuate_pageblock(z, policy, pb)
        account_moves(z, node)
        is_done = z.pb.used[pb, MOVABLE] == 0 or z.ev[Ev.BUSY_MOVES] == 0
        defer_requests(z, policy, node, shrink, MOVABLE)
        if is_done:
            break
    free = z.pb.used[pb, MOVABLE] == 0
    node.vm[V.COMPACT_SUCCESS if free else V.COMPACT_FAIL] += 1
    return 1 if free else 0


@kernel
def compact_for_thp(z, policy, node, shrink):
    """Make a free pageblock for a THP fault; 1 if there is one."""
    interval = node.conf[N.COMPACT_INTERVAL]
    if interval == 0:
        return 0
    now = node.now[Now.NS]
    # The allowance is a bucket of `compact_candidates` tries that fills at the rate.
    most = node.conf[N.COMPACT_CANDIDATES]
    node.now[Now.COMPACT_READY] = max(node.now[Now.COMPACT_READY], now - most * interval)
    if node.now[Now.COMPACT_READY] + interval > now:
        return 0
    node.vm[V.COMPACT_STALL] += 1
    tried = 0
    pb = node.now[Now.COMPACT_CURSOR]
    for _ in range(min(SCAN_MOST, z.geo.nr_pb)):
        pb = pb + 1 if pb + 1 < z.geo.nr_pb else 0
        if not is_compactable(z, pb):
            continue
        node.now[Now.COMPACT_CURSOR] = pb
        node.now[Now.COMPACT_READY] += interval
        tried += 1
        if compact_pageblock(z, policy, node, shrink, pb):
            return 1
        if tried == most or node.now[Now.COMPACT_READY] + interval > now:
            return 0
    node.now[Now.COMPACT_CURSOR] = pb
    return 0
