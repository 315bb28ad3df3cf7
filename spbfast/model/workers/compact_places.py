"""The free scanner: from the zone's end down, free blocks that movable pages may be moved to.

Owns which pageblocks it takes and the free blocks that a run holds isolated (`Node.places`): first in,
first out by order, as the kernel's lists of a run. Source: mm/compaction.c as of Linux 6.6,
isolate_freepages, isolate_freepages_block, suitable_migration_target, compaction_alloc;
__isolate_free_page. Model: under superpageblocks places lie in clean ones only, as for all that migrates
(migrate.py), so that nothing is tainted; an isolated block of half a
pageblock does not relabel it.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLEAN, CMA, MOVABLE, NR_ORDERS, NR_REQUEST_MT, PB_ORDER, PB_PAGES, C, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.buddy import free_piece, take_block
from spbfast.model.allocator.owner import note_fragments
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import category_of_list
from spbfast.model.state.compact_layout import MAX_PLACES, RING, RING_HEAD, RING_TAIL, Cc
from spbfast.model.state.node import N
from spbfast.model.state.page_state import block_order, free_mt, is_free_head, state_at
from spbfast.model.workers.compact_cursors import first_in_pageblock, set_scanned_target
from spbfast.model.workers.compact_sources import CLUSTER


@inline_kernel
def nr_places(places, order):
    """Isolated free blocks of an order."""
    return places[order, RING_TAIL] - places[order, RING_HEAD]


@inline_kernel
def add_place_tail(places, order, pfn):
    """Put a free block behind the isolated ones of its order."""
    places[order, RING + places[order, RING_TAIL] % MAX_PLACES] = pfn
    places[order, RING_TAIL] += 1


@inline_kernel
def add_place_head(places, order, pfn):
    """Put a free block before the isolated ones of its order."""
    places[order, RING_HEAD] -= 1
    places[order, RING + places[order, RING_HEAD] % MAX_PLACES] = pfn


@inline_kernel
def take_place_head(places, order):
    """Take the first isolated free block of an order that has one."""
    pfn = places[order, RING + places[order, RING_HEAD] % MAX_PLACES]
    places[order, RING_HEAD] += 1
    return pfn


@inline_kernel
def is_open_to_movable(z, policy, spb):
    """Whether movable pages may be moved into a superpageblock; without superpageblocks always."""
    if z.spb.list[spb] < 0:
        return False
    return not policy[P.superpageblocks] or category_of_list(z.spb.list[spb]) == CLEAN


@kernel
def is_target(z, cc, pb):
    """Whether a pageblock may take in pages (suitable_migration_target)."""
    state = state_at(z.page, pb << PB_ORDER)
    if is_free_head(state) and block_order(state) >= PB_ORDER:
        return False
    label = np.int64(z.pb.label[pb])
    if cc[Cc.FORCED]:
        return label < NR_REQUEST_MT or label == CMA
    return label == MOVABLE or label == CMA


@inline_kernel
def may_isolate(w, size):
    """Whether free pages stay above min without a block (__isolate_free_page)."""
    count = w.zone.count
    free = count[C.FREE_PAGES] - count[C.FREE_HIGHATOMIC]
    return free > w.node.conf[N.WMARK_MIN] + size and w.node.compact[Cc.NR_FREE] <= MAX_PLACES - PB_PAGES


@kernel
def isolate_places_in(w, pfn, end, stride):
    """Isolate free blocks of one pageblock until there are enough; (page to go on at, pages isolated).

    Every `stride`-th page is looked at.
    """
    z, cc, places = w.zone, w.node.compact, w.node.places
    nr, scanned = np.int64(0), np.int64(0)
    while pfn < end:
        state = state_at(z.page, pfn)
        order = block_order(state)
        size = 1 if order < 0 else 1 << order
        scanned += size
        if order >= 0 and is_free_head(state):
            if not may_isolate(w, size):
                scanned += 1 - size
                break
            take_block(z, pfn, order, order, free_mt(state))
            add_place_tail(places, order, pfn)
            nr += size
            cc[Cc.NR_FREE] += size
            if cc[Cc.NR_MIGRATE] <= cc[Cc.NR_FREE]:
                pfn += size
                break
        pfn += size - 1 + stride
    cc[Cc.FREE_SCANNED] += scanned
    cc[Cc.ISOLATED] += nr
    return min(pfn, end), nr


@kernel
def isolate_places(w, policy):
    """Let the free scanner isolate places for what waits, down to the migrate scanner's pageblock.

    Asynchronously it looks at one page in 32 of a pageblock until it finds something.
    """
    z, node = w.zone, w.node
    cc = node.compact
    pfn = cc[Cc.FREE]
    block = first_in_pageblock(pfn)
    low = first_in_pageblock(cc[Cc.MIGRATE]) + PB_PAGES
    stride = np.int64(1 if cc[Cc.SYNC] else CLUSTER)
    while block >= low:
        pb = block >> PB_ORDER
        spb = block >> z.geo.spb_shift
        if not is_open_to_movable(z, policy, spb):
            block = max(spb << z.geo.spb_shift, low)
        elif is_target(z, cc, pb) and (cc[Cc.FORCED] or not node.skip[pb]):
            end = block + PB_PAGES
            pfn, nr = isolate_places_in(w, pfn, end, stride)
            if pfn == end:
                set_scanned_target(node, pb)
            if cc[Cc.NR_FREE] >= cc[Cc.NR_MIGRATE] or pfn < end:
                pfn = block - PB_PAGES if pfn == end else pfn
                break
            stride = np.int64(1) if nr else min(np.int64(CLUSTER), stride * 2)
        block -= PB_PAGES
        pfn = block
    cc[Cc.FREE] = pfn


@inline_kernel
def find_place(places, order):
    """Least order from `order` up of which a free block is isolated, or -1."""
    for high in range(order, NR_ORDERS):
        if nr_places(places, high) > 0:
            return high
    return -1


@kernel
def release_places(w, policy):
    """Free what is left of the isolated places; the free scanner resumes at the highest of them at least."""
    z, cc, places = w.zone, w.node.compact, w.node.places
    highest = np.int64(-1)
    for order in range(NR_ORDERS):
        while nr_places(places, order) > 0:
            pfn = take_place_head(places, order)
            highest = max(highest, pfn)
            pb = pfn >> PB_ORDER
            free_piece(z, pfn, order, False)
            if z.pb.owner[pb]:
                note_fragments(z, pb)
            settle(z, policy, pfn)
        places[order, RING_HEAD] = 0
        places[order, RING_TAIL] = 0
    cc[Cc.NR_FREE] = 0
    if highest >= 0:
        cc[Cc.CACHED_FREE] = max(cc[Cc.CACHED_FREE], first_in_pageblock(highest))
