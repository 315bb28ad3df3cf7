"""Compaction inside one clean superpageblock: its emptiest pageblocks into its fullest ones.

Model (v1 17 is known by its title): when a clean superpageblock has free pages for whole pageblocks but few
free pageblocks, movable blocks of its emptiest pageblock go to free places of its fullest one, pageblock by
pageblock. A pinned block ends its pageblock. Places are found by one pass over each target, as the
kernel's free scanner does.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLEAN, MOVABLE, PB_ORDER, PB_PAGES, Ev, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.buddy import take_block
from spbfast.model.allocator.migrate import event_mark, is_busy_thrice, move_block
from spbfast.model.allocator.resting import release_pageblock
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used, category_of_list
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.state.page_state import (
    CODE_MOVABLE,
    CODE_PINNED,
    block_order,
    code_of,
    is_free_head,
    state_at,
)
from spbfast.model.state.vmstat import V
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests

TARGET, CURSOR = 0, 1  # in `z.scratch`: pageblock that is being filled, next page of it to look at


@inline_kernel
def needs_compaction(z, spb, free_pb_most, fragments_least):
    """Whether a superpageblock is clean, short of free pageblocks, and has the pages to make some.

    `fragments_least`: free pages outside free pageblocks, in pageblocks.
    """
    if z.spb.list[spb] < 0 or category_of_list(z.spb.list[spb]) != CLEAN:
        return False
    free_pb = np.int64(z.spb.nr_free_pb[spb])
    fragments = z.spb.nr_free_pages[spb] - free_pb * PB_PAGES
    return free_pb <= free_pb_most and fragments >= fragments_least * PB_PAGES


@kernel
def find_source(z, spb):
    """The pageblock with the fewest movable pages, not tried yet in this event, or -1."""
    nr_pb = 1 << (z.geo.spb_shift - PB_ORDER)
    best, least = np.int64(-1), np.int64(PB_PAGES)
    for pb in range(spb * nr_pb, (spb + 1) * nr_pb):
        used = np.int64(z.pb.used[pb, MOVABLE])
        if 0 < used < least and z.pb.mark[pb] != event_mark(z):
            best, least = np.int64(pb), used
    return best


@kernel
def find_target(z, spb, source):
    """The movable pageblock with the most movable pages that is not full nor passed over, or -1."""
    nr_pb = 1 << (z.geo.spb_shift - PB_ORDER)
    best, most = np.int64(-1), np.int64(0)
    for pb in range(spb * nr_pb, (spb + 1) * nr_pb):
        used = np.int64(z.pb.used[pb, MOVABLE])
        if pb == source or z.pb.mark[pb] == event_mark(z) or z.pb.label[pb] != MOVABLE:
            continue
        if most < used < PB_PAGES:
            best, most = np.int64(pb), used
    return best


@kernel
def take_in_target(z, order):
    """A free block of at least `order` behind the cursor in the target, or -1: the target is passed over."""
    pfn = z.scratch[CURSOR]
    end = (z.scratch[TARGET] + 1) << PB_ORDER
    while pfn < end:
        state = state_at(z.page, pfn)
        high = block_order(state)
        if high >= order and is_free_head(state):
            z.scratch[CURSOR] = pfn + (1 << order)
            z.ev[Ev.FREE_SCANNED] += 1 << high
            return take_block(z, pfn, high, order, MOVABLE)
        step = 1 if high < 0 else 1 << high
        z.ev[Ev.FREE_SCANNED] += step
        pfn += step
    z.pb.mark[z.scratch[TARGET]] = event_mark(z)
    z.scratch[TARGET] = -1
    return np.int64(-1)


@kernel
def take_within(z, spb, source, order):
    """A free place in the fullest pageblocks of a superpageblock for a block of `source`, or -1."""
    pfn = np.int64(-1)
    while pfn < 0:
        # What was the target may have become the emptiest one and now be the source.
        if z.scratch[TARGET] < 0 or z.scratch[TARGET] == source:
            z.scratch[TARGET] = find_target(z, spb, source)
            if z.scratch[TARGET] < 0:
                return np.int64(-1)
            z.scratch[CURSOR] = z.scratch[TARGET] << PB_ORDER
        pfn = take_in_target(z, order)
    add_used(z, pfn, order, MOVABLE)
    return pfn


@kernel
def empty_into_fullest(z, policy, spb, source):
    """Move a pageblock's blocks to fuller ones of its superpageblock; 1 if it is wholly free now."""
    pfn = source << PB_ORDER
    end = pfn + PB_PAGES
    if policy[P.pcp_owned_pageblocks] and z.pb.owner[source]:
        release_pageblock(z, policy, source)
        settle(z, policy, pfn)
    while pfn < end:
        z.ev[Ev.MIGRATE_SCANNED] += 1
        state = state_at(z.page, pfn)
        order = block_order(state)
        if order < 0 or is_free_head(state):
            pfn += 1 if order < 0 else 1 << order
            continue
        if code_of(state) == CODE_PINNED:
            z.ev[Ev.PINNED_MOVES] += 1
            return 0
        if is_busy_thrice(z, pfn):
            return 0
        new = take_within(z, spb, source, order) if code_of(state) == CODE_MOVABLE else np.int64(-1)
        if new < 0:
            z.ev[Ev.FAILED_MOVES] += 1
            return 0
        move_block(z, policy, pfn, order, new)
        pfn += 1 << order
    return 1 if z.pb.used[source, MOVABLE] == 0 else 0


@kernel
def compact_spb(z, policy, spb, most, free_pb_most, fragments_least):
    """Empty up to `most` of a superpageblock's pageblocks while it needs it; number of them freed."""
    if not policy[P.compact_within_superpageblock]:
        return 0
    nr = 0
    z.scratch[TARGET] = -1
    for _ in range(most):
        fragments = z.spb.nr_free_pages[spb] - np.int64(z.spb.nr_free_pb[spb]) * PB_PAGES
        if z.ev[Ev.NR_PAGEBLOCKS] == 0:
            if not needs_compaction(z, spb, free_pb_most, fragments_least):
                return 0
        elif fragments < fragments_least * PB_PAGES:
            break
        source = find_source(z, spb)
        if source < 0:
            break
        z.pb.mark[source] = event_mark(z)
        z.ev[Ev.NR_PAGEBLOCKS] += 1
        nr += empty_into_fullest(z, policy, spb, source)
    return nr


@kernel
def run_within(w, policy):
    """Compact inside the clean superpageblocks that need it, ascending; no pageblock freed means a pause."""
    z, node = w.zone, w.node
    now = node.now[Now.NS]
    interval = node.conf[N.WITHIN_INTERVAL]
    node.due[Wk.WITHIN] = now + interval if interval > 0 else NEVER
    few, least = node.conf[N.WITHIN_FREE_PB], node.conf[N.WITHIN_FRAGMENTS]
    for spb in range(z.geo.nr_spb):
        if now < node.within[spb] or not needs_compaction(z, spb, few, least):
            continue
        begin_event(z, 0)
        freed = compact_spb(z, policy, spb, node.conf[N.WITHIN_PAGEBLOCKS], few, least)
        node.vm[V.SPB_COMPACT_RAN] += 1
        node.vm[V.SPB_COMPACT_PAGES] += z.ev[Ev.MOVED_PAGES]
        node.vm[V.SPB_COMPACT_FREED] += freed
        node.vm[V.COMPACT_MIGRATE_SCANNED] += z.ev[Ev.MIGRATE_SCANNED]
        node.vm[V.COMPACT_FREE_SCANNED] += z.ev[Ev.FREE_SCANNED]
        cost = account_moves(w)
        node.within[spb] = now + (cost if freed else node.conf[N.WITHIN_COOLDOWN])
        defer_requests(w, policy, MOVABLE)
