"""Compaction: empty pageblocks of movable pages, for a THP fault or in the background (kcompactd).

Model (docs/spec/machine.md, section 1): a cursor goes over the zone's pageblocks; of those in use that hold
movable pages only, up to `compact_candidates` are tried, and all faults together get `compact_rate` a
second. With superpageblocks only clean ones count, since no movable request may use what is emptied in the
others; the mainline scanner takes any. With `reclaim.compaction: scanners` workers/compact_zone.py does the
work instead; who is woken and what requests may spend is decided here for both.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLEAN,
    EMPTY,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    RECLAIMABLE,
    TAINTED,
    UNMOVABLE,
    Ev,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.choose import find_by_address
from spbfast.model.allocator.migrate import evacuate_pageblock
from spbfast.model.allocator.pick import order_mask
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.allocator.spb import category_of_list
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.state.trace import Cause
from spbfast.model.state.vmstat import V
from spbfast.model.workers.compact_deferral import defer_compaction, is_deferred, raise_order_failed
from spbfast.model.workers.compact_zone import RUN_MET, RUN_SKIPPED, RUN_SUCCEEDED, compact_zone
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests

SCAN_MOST = 2048  # pageblocks that one fault looks at
PASSES = 3  # over a pageblock, for pages that were busy; migrate_pages makes up to 10


@inline_kernel
def is_compactable(z, pb, any_label):
    """Whether emptying a pageblock by migration may be possible and of use: movable and in use.

    Asynchronous direct compaction looks at pageblocks of its type only (suitable_migration_source).
    """
    lst = np.int64(z.spb.list[pb >> (z.geo.spb_shift - PB_ORDER)])
    if lst < 0 or (z.pb.label[pb] != MOVABLE and not any_label):
        return False
    if z.geo.set_mask != 0 and category_of_list(lst) != CLEAN:
        return False
    if z.pb.used[pb, UNMOVABLE] or z.pb.used[pb, RECLAIMABLE]:
        return False
    return z.pb.used[pb, MOVABLE] > 0


@kernel
def skip_immovable(w, pb):
    """The first pageblock from `pb` on, in a circle, outside tainted superpageblocks with nothing movable."""
    z = w.zone
    shift = z.geo.spb_shift - PB_ORDER
    for _ in range(z.geo.nr_spb):
        spb = pb >> shift
        lst = np.int64(z.spb.list[spb])
        if lst < 0 or category_of_list(lst) != TAINTED or z.spb.content[spb, MOVABLE] > 0:
            break
        w.node.vm[V.COMPACT_SKIPPED_SPBS] += 1
        pb = (spb + 1) << shift
        if pb >= z.geo.nr_pb:
            pb = np.int64(0)
    return pb


@kernel
def scan_next(w, policy, pb, any_label):
    """The pageblock after `pb`, in a circle, that the scanner comes to; counted if it looks inside."""
    z = w.zone
    pb = pb + 1 if pb + 1 < z.geo.nr_pb else np.int64(0)
    if policy[P.compaction_skips_immovable]:
        pb = skip_immovable(w, pb)
    if z.pb.label[pb] == MOVABLE or any_label:
        w.node.vm[V.COMPACT_MIGRATE_SCANNED] += PB_PAGES
    return pb


@kernel
def compact_pageblock(w, policy, pb):
    """Try to empty one pageblock; (1 if it is free now, cost in ns)."""
    z = w.zone
    cost = np.int64(0)
    for _ in range(PASSES):
        begin_event(z, 0)
        z.ev[Ev.CAUSE] = Cause.COMPACTION
        evacuate_pageblock(z, policy, pb)
        z.ev[Ev.CAUSE] = 0
        cost += account_moves(w)
        w.node.vm[V.COMPACT_FREE_SCANNED] += z.ev[Ev.MOVED_PAGES]
        is_done = z.pb.used[pb, MOVABLE] == 0 or z.ev[Ev.BUSY_MOVES] == 0
        defer_requests(w, policy, MOVABLE)
        if is_done:
            break
    return 1 if z.pb.used[pb, MOVABLE] == 0 else 0, cost


@kernel
def take_allowance(node):
    """Whether requests may compact now. A bucket of `compact_candidates` pageblocks fills at the rate; what
    overflows is lost.
    """
    interval = node.conf[N.COMPACT_INTERVAL]
    if interval == 0:
        return False
    now = node.now[Now.NS]
    most = node.conf[N.COMPACT_CANDIDATES]
    node.now[Now.COMPACT_READY] = max(node.now[Now.COMPACT_READY], now - most * interval)
    return node.now[Now.COMPACT_READY] + interval <= now


@kernel
def compact_candidates(w, policy, any_label):
    """Empty a pageblock, trying as many as the allowance lets; 1 if one is free now."""
    z, node = w.zone, w.node
    wake_compaction(node, PB_ORDER)
    if not take_allowance(node):
        return 0
    interval, now, most = node.conf[N.COMPACT_INTERVAL], node.now[Now.NS], node.conf[N.COMPACT_CANDIDATES]
    node.vm[V.COMPACT_STALL] += 1
    tried = 0
    pb = node.now[Now.COMPACT_CURSOR]
    for _ in range(min(SCAN_MOST, z.geo.nr_pb)):
        pb = scan_next(w, policy, pb, any_label)
        if not is_compactable(z, pb, any_label):
            continue
        node.now[Now.COMPACT_CURSOR] = pb
        node.now[Now.COMPACT_READY] += interval
        tried += 1
        free, _ = compact_pageblock(w, policy, pb)
        node.vm[V.COMPACT_SUCCESS if free else V.COMPACT_FAIL] += 1
        if free:
            return 1
        if tried == most or node.now[Now.COMPACT_READY] + interval > now:
            return 0
    node.now[Now.COMPACT_CURSOR] = pb
    return 0


@kernel
def compact_for_thp(w, policy):
    """Make a free pageblock for a THP fault, asynchronously; 1 if there is one."""
    return compact_candidates(w, policy, False)


@kernel
def compact_synchronously(w, policy):
    """As `compact_for_thp`, for a request that may wait."""
    return compact_candidates(w, policy, w.node.conf[N.COMPACT_ANY_LABEL] != 0)


# --- in the background ----------------------------------------------------------------------------


@kernel
def wake_compaction(node, order):
    """A request above order 0 failed: wake what compacts in the background (wakeup_kcompactd)."""
    start = node.now[Now.NS] + node.conf[N.WQ_DELAY]
    if node.conf[N.WITHIN_ON] and order >= PB_ORDER:
        node.due[Wk.WITHIN] = min(node.due[Wk.WITHIN], start)
    if not node.conf[N.KCOMPACTD_ON] or order == 0:
        return
    node.now[Now.KCOMPACTD_ORDER] = max(node.now[Now.KCOMPACTD_ORDER], order)
    if node.due[Wk.KCOMPACTD] == NEVER and node.now[Now.NS] >= node.now[Now.KCOMPACTD_READY]:
        node.due[Wk.KCOMPACTD] = start
        node.now[Now.KCOMPACTD_LEFT] = -1
        node.vm[V.COMPACT_DAEMON_WAKE] += 1


@kernel
def has_movable_block(z, order):
    """Whether a movable request of that order could be served from free lists."""
    if z.geo.set_mask == 0:
        return order_mask(z, 0, MOVABLE) >> order != 0
    in_clean = find_by_address(z, CLEAN, MOVABLE, MOVABLE, order, 0)
    return in_clean >= 0 or find_by_address(z, EMPTY, MOVABLE, MOVABLE, order, 0) >= 0


@kernel
def run_kcompactd_scanners(w, policy, order):
    """A run of the two scanners in the background, synchronous but light, unless it is deferred.

    Source: kcompactd_do_work. Model: it works at once, and the next one waits until its time is over; the
    block is one that movable requests may use, where the kernel's test is for unmovable ones, which may
    claim any.
    """
    node = w.node
    node.now[Now.KCOMPACTD_ORDER] = 0
    if order == 0:
        return
    if is_deferred(node, order):
        node.vm[V.COMPACT_DEFERRED] += 1
        return
    result, sources, cost = compact_zone(w, policy, order, np.int64(MOVABLE), True, False, False)
    if result == RUN_SUCCEEDED:
        raise_order_failed(node, order)
    elif result == RUN_MET:
        defer_compaction(node, order)
    if result != RUN_SKIPPED:
        node.due[Wk.KCOMPACTD] = node.now[Now.NS] + max(cost, 1)


@kernel
def run_kcompactd(w, policy):
    """One slice of background compaction: until the order is free, or all memory was scanned without success.

    Model: a slice empties up to `kcompactd_pageblocks`; after a pass without success it sleeps for
    `kcompactd_pause`, where the kernel counts and defers.
    """
    z, node = w.zone, w.node
    node.due[Wk.KCOMPACTD] = NEVER
    order = node.now[Now.KCOMPACTD_ORDER]
    if node.conf[N.COMPACT_SCANNERS]:
        run_kcompactd_scanners(w, policy, order)
        return
    if node.now[Now.KCOMPACTD_LEFT] < 0:
        node.now[Now.KCOMPACTD_LEFT] = z.geo.nr_pb
    any_label = node.conf[N.COMPACT_ANY_LABEL] != 0
    cost, tried = np.int64(0), 0
    pb = node.now[Now.COMPACT_CURSOR]
    while tried < node.conf[N.KCOMPACTD_PAGEBLOCKS]:
        if has_movable_block(z, order):
            node.now[Now.KCOMPACTD_ORDER] = 0
            return
        if node.now[Now.KCOMPACTD_LEFT] <= 0:
            node.now[Now.KCOMPACTD_ORDER] = 0
            node.now[Now.KCOMPACTD_READY] = node.now[Now.NS] + node.conf[N.KCOMPACTD_PAUSE]
            return
        before = pb
        pb = scan_next(w, policy, pb, any_label)
        # Stepping over superpageblocks covers ground too.
        node.now[Now.KCOMPACTD_LEFT] -= pb - before if pb > before else pb + z.geo.nr_pb - before
        node.now[Now.COMPACT_CURSOR] = pb
        if is_compactable(z, pb, any_label):
            tried += 1
            free, spent = compact_pageblock(w, policy, pb)
            cost += spent
            node.vm[V.COMPACT_DAEMON_FREED] += free
    node.due[Wk.KCOMPACTD] = node.now[Now.NS] + max(cost, 1)
