"""Executing demand rows: the only place where actors' demand meets the allocator.

Owns what each op does with owners and slots. A failed request leaves its slot empty and is counted by
requests/alloc_pages.py; freeing an empty slot does nothing, so demand stays the same under every policy.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLS_EXTENT_BUFFER,
    CLS_KSWAPD,
    CLS_KVMALLOC,
    CLS_NOMEMALLOC,
    CLS_NORETRY,
    CLS_NOWARN,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    RECLAIMABLE,
    Err,
    Op,
    P,
    Row,
)
from spbfast.jit.decorators import inline_kernel, kernel, read_cycles
from spbfast.model.allocator.free import free_held, hand_out, note_gone, slot_pfn, take_slot
from spbfast.model.allocator.pcp import pcp_free
from spbfast.model.allocator.pcplist import is_pcp_order
from spbfast.model.allocator.prefetch import prefetch_page, prefetch_slot
from spbfast.model.holders.inode_scan import drop_inodes
from spbfast.model.holders.inodes import DONE, POOL_FULL, grow_inodes, skip_object
from spbfast.model.holders.pagecache import add_folio, has_room, nr_folios, take_folio
from spbfast.model.holders.slab import NO_SLOT, add_slab, free_emptied, next_slab_slot
from spbfast.model.loop.kvmalloc import get_kvmalloc
from spbfast.model.primitives.draws import chance, draw
from spbfast.model.requests.alloc_pages import request, request_thp
from spbfast.model.state.node import OWNER_COLD, N, Now, Ph
from spbfast.model.state.page_state import CODE_PINNED, code_of, mt_of_code, order_of, state_at
from spbfast.model.state.slab_layout import Sc, Si, St
from spbfast.model.state.vmstat import V
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.gigantic import queue_contig, return_contig

# SLUB's first attempt at the preferred order: no reclaim, no reserves, no retry.
CLS_SLUB_FIRST = CLS_NORETRY | CLS_NOWARN | CLS_NOMEMALLOC | CLS_KSWAPD
ROW_AHEAD = 12


@inline_kernel
def draw_code(node, mt):
    """Code of a block asked for as mt: a drawn share of movable memory is pinned.

    The draw is consumed whether or not the request succeeds: pins are part of the demand.
    """
    if mt != MOVABLE or node.conf[N.PINNED_32] == 0:
        return mt
    node.now[Now.PIN_COUNTER] += 1
    pinned = chance(draw(node.conf[N.PIN_KEY], node.now[Now.PIN_COUNTER]), node.conf[N.PINNED_32])
    return CODE_PINNED if pinned else mt


@kernel
def put_page(w, policy, owner, slot, cpu):
    """Free whatever is in an owner's slot, through the CPU's lists where they take its order."""
    z = w.zone
    pfn = take_slot(z, owner, slot)
    if pfn < 0:
        return
    state = state_at(z.page, pfn)
    order = order_of(state)
    w.node.vm[V.PGFREE] += 1 << order
    w.node.vm[V.PAGE_EVENTS] += 1
    if z.geo.nr_cpus > 0 and is_pcp_order(order):
        note_gone(z, pfn, order, code_of(state))
        pcp_free(z, policy, cpu, pfn, order, mt_of_code(code_of(state)))
    else:
        free_held(z, policy, pfn)
    defer_requests(w, policy, MOVABLE)


@kernel
def get_buffer(w, policy, row, slot):
    """One kvmalloc request of a row; what a failed one had already got goes back."""
    for i in range(get_kvmalloc(w, policy, row, slot)):
        put_page(w, policy, np.int64(row[Row.OWNER]), slot + i, np.int64(row[Row.CPU]))


@kernel
def get_page(w, policy, row, slot):
    """One request of a row into a slot, at the alternative order if the first fails."""
    order = np.int64(row[Row.ORDER])
    mt = np.int64(row[Row.MT])
    cls = np.int64(row[Row.CLS])
    cpu = np.int64(row[Row.CPU])
    if cls & (CLS_KVMALLOC | CLS_EXTENT_BUFFER):
        if cls & CLS_KVMALLOC:
            get_buffer(w, policy, row, slot)
            return
        if policy[P.extent_buffers_movable]:
            mt = np.int64(MOVABLE)
    # Tree pages can always be moved, and no pin is drawn for them: others' pins stay as they are.
    code = mt if cls & CLS_EXTENT_BUFFER else draw_code(w.node, mt)
    pfn = request(w, policy, order, mt, cls, cpu)
    if pfn < 0 and row[Row.ALT_ORDER] >= 0:
        order = np.int64(row[Row.ALT_ORDER])
        pfn = request(w, policy, order, mt, cls, cpu)
    if pfn >= 0:
        hand_out(w.zone, pfn, order, code, np.int64(row[Row.OWNER]), slot)


@kernel
def run_alloc_row(w, policy, row):
    """N requests into consecutive slots."""
    first = np.int64(row[Row.SLOT])
    for slot in range(first, first + row[Row.N]):
        if slot_pfn(w.zone, np.int64(row[Row.OWNER]), slot) >= 0:
            return Err.CORRUPT
        get_page(w, policy, row, slot)
    return Err.OK


@kernel
def run_free_row(w, policy, row):
    """Free N consecutive slots."""
    owner, first, cpu = np.int64(row[Row.OWNER]), np.int64(row[Row.SLOT]), np.int64(row[Row.CPU])
    last = first + row[Row.N] - 1
    for slot in range(first, last + 1):
        ahead = slot_pfn(w.zone, owner, min(slot + ROW_AHEAD, last))
        if ahead >= 0:
            prefetch_page(w.zone.page, ahead)
        put_page(w, policy, owner, slot, cpu)
    return Err.OK


@kernel
def run_thp_row(w, policy, row):
    """N huge faults; where no huge page is to be had, 512 base pages."""
    owner = np.int64(row[Row.OWNER])
    for i in range(row[Row.N]):
        first = np.int64(row[Row.SLOT]) + i * PB_PAGES
        code = draw_code(w.node, MOVABLE)
        pfn = request_thp(w, policy, np.int64(row[Row.CLS]), np.int64(row[Row.CPU]))
        if pfn >= 0:
            hand_out(w.zone, pfn, PB_ORDER, code, owner, first)
            continue
        for slot in range(first, first + PB_PAGES):
            base_page_of(w, policy, row, code, owner, slot)
    return Err.OK


@kernel
def base_page_of(w, policy, row, code, owner, slot):
    """One base page of a huge fault that fell back; pinned if the huge page would have been."""
    pfn = request(w, policy, 0, MOVABLE, np.int64(row[Row.CLS]) & ~CLS_NORETRY, np.int64(row[Row.CPU]))
    if pfn >= 0:
        hand_out(w.zone, pfn, 0, code, owner, slot)


@kernel
def run_replace_row(w, policy, row):
    """End one lifetime, begin another in the same slot."""
    slot = np.int64(row[Row.SLOT])
    put_page(w, policy, np.int64(row[Row.OWNER]), slot, np.int64(row[Row.CPU]))
    get_page(w, policy, row, slot)
    return Err.OK


@kernel
def add_to_cache(w, policy, order, alt_order, cls, cpu, is_reused):
    """One folio into the page cache; 0 if it could not be added."""
    node = w.node
    if not has_room(w.zone, node, is_reused):
        node.vm[V.PAGE_CACHE_NOT_ADDED] += 1
        return 0
    pfn = request(w, policy, order, MOVABLE, cls, cpu)
    if pfn < 0 and alt_order >= 0:
        order = alt_order
        pfn = request(w, policy, order, MOVABLE, cls, cpu)
    if pfn < 0:
        node.vm[V.PAGE_CACHE_NOT_ADDED] += 1
        return 0
    if not add_folio(w.zone, node, pfn, order, is_reused):
        # Its request reclaimed, and the other ring is due now.
        add_folio(w.zone, node, pfn, order, not is_reused)
    node.vm[V.PAGE_CACHE_ADDED] += 1 << order
    return 1


@kernel
def run_cache_row(w, policy, row):
    """N folios enter the page cache, or N oldest ones leave it."""
    z, node = w.zone, w.node
    for _ in range(row[Row.N]):
        if row[Row.OP] == Op.CACHE_ADD:
            order, alt = np.int64(row[Row.ORDER]), np.int64(row[Row.ALT_ORDER])
            is_reused = row[Row.SLOT] != 0
            add_to_cache(w, policy, order, alt, np.int64(row[Row.CLS]), np.int64(row[Row.CPU]), is_reused)
        elif nr_folios(node, OWNER_COLD) > 0:
            node.vm[V.PAGE_CACHE_DROPPED] += take_folio(z, policy, node, OWNER_COLD, np.int64(0))
            defer_requests(w, policy, MOVABLE)
    return Err.OK


@kernel
def get_slab(w, policy, c, cls, cpu):
    """Pages for a slab of cache c, as SLUB asks: the preferred order lightly, then the least; 0 if none."""
    z, slab = w.zone, w.slab
    mt, owner = slab.cache[c, Sc.MT], slab.cache[c, Sc.OWNER]
    order = slab.cache[c, Sc.ORDER]
    pfn = np.int64(-1)
    if order > slab.cache[c, Sc.MIN_ORDER]:
        pfn = request(w, policy, order, mt, CLS_SLUB_FIRST, cpu)
        if pfn < 0:
            w.node.vm[V.SLAB_ORDER_FALLBACK] += 1
    if pfn < 0:
        order = slab.cache[c, Sc.MIN_ORDER]
        pfn = request(w, policy, order, mt, cls, cpu)
    if pfn < 0:
        return 0
    slot = next_slab_slot(slab)  # there is one: the caller has looked, and no request adds slabs
    hand_out(z, pfn, order, mt, owner, slot)
    add_slab(slab, c, slot, order)
    return 1


@kernel
def run_slab_drop_row(w, policy, row):
    """The N oldest inodes of an instance go."""
    node, slab = w.node, w.slab
    pages = slab.stat[St.PAGES_FREED]
    drop_inodes(slab, np.int64(row[Row.SLOT]), np.int64(row[Row.N]))
    node.vm[V.PAGE_EVENTS] += free_emptied(w.zone, policy, slab)
    node.vm[V.PGFREE] += slab.stat[St.PAGES_FREED] - pages
    defer_requests(w, policy, RECLAIMABLE)
    return Err.OK


@kernel
def grow_instance(w, policy, inst, nr, cls, cpu):
    """N inodes with all that belongs to them come to a shrinker instance."""
    slab = w.slab
    code = grow_inodes(slab, inst, nr)
    while code != DONE:
        if code == POOL_FULL or next_slab_slot(slab) == NO_SLOT:
            # Counted, not fatal: the run goes on with what the tables hold.
            w.node.vm[V.SLAB_OBJECTS_FULL] += slab.inst[inst, Si.AWAITED]
            slab.inst[inst, Si.AWAITED] = 0
            return
        if not get_slab(w, policy, code, cls, cpu):
            w.node.vm[V.SLAB_ALLOC_FAILED] += 1
            skip_object(slab, inst)
        code = grow_inodes(slab, inst, np.int64(0))


@kernel
def run_slab_row(w, policy, row):
    """N inodes with all that belongs to them come, or the N oldest go."""
    if row[Row.OP] == Op.SLAB_DROP:
        return run_slab_drop_row(w, policy, row)
    inst, nr = np.int64(row[Row.SLOT]), np.int64(row[Row.N])
    grow_instance(w, policy, inst, nr, np.int64(row[Row.CLS]), np.int64(row[Row.CPU]))
    return Err.OK


@kernel
def run_contig_row(w, policy, row):
    """Ask for a whole superpageblock into a slot, or give it back."""
    owner, slot = np.int64(row[Row.OWNER]), np.int64(row[Row.SLOT])
    if row[Row.OP] == Op.CONTIG_ALLOC:
        queue_contig(w.node, owner, slot)
    else:
        return_contig(w, policy, owner, slot)
    return Err.OK


@kernel
def run_row(w, policy, row):
    """Execute one row; an error code."""
    op = np.int64(row[Row.OP])
    if op == Op.REPLACE:
        return run_replace_row(w, policy, row)
    if op == Op.ALLOC:
        return run_alloc_row(w, policy, row)
    if op == Op.FREE:
        return run_free_row(w, policy, row)
    if op == Op.THP:
        return run_thp_row(w, policy, row)
    if op == Op.CACHE_ADD or op == Op.CACHE_DROP:
        return run_cache_row(w, policy, row)
    if op == Op.CONTIG_ALLOC or op == Op.CONTIG_FREE:
        return run_contig_row(w, policy, row)
    start = read_cycles()
    err = run_slab_row(w, policy, row)
    w.node.cycles[Ph.SLAB] += read_cycles() - start
    return err


@inline_kernel
def prefetch_row(z, row):
    """Hint that the block which a coming REPLACE row frees is needed soon."""
    if row[Row.OP] == Op.REPLACE:
        pfn = slot_pfn(z, np.int64(row[Row.OWNER]), np.int64(row[Row.SLOT]))
        if pfn >= 0:
            prefetch_page(z.page, pfn)


@kernel
def run_rows(w, policy, rows, n):
    """Execute the first n rows in order; the first error code ends it."""
    for i in range(n):
        if i + 2 * ROW_AHEAD < n:
            ahead = rows[i + 2 * ROW_AHEAD]
            prefetch_slot(w.zone.slots, np.int64(ahead[Row.OWNER]), np.int64(ahead[Row.SLOT]))
            prefetch_row(w.zone, rows[i + ROW_AHEAD])
        err = run_row(w, policy, rows[i])
        if err != Err.OK:
            return err
    return Err.OK
