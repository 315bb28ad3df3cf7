"""Executing demand rows: the only place where actors' demand meets the allocator.

Owns what each op does with owners and slots. A failed request leaves its slot empty and is counted by
requests/alloc_pages.py; freeing an empty slot does nothing, so demand stays the same under every policy.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLS_EXTENT_BUFFER,
    CLS_KVMALLOC,
    CLS_NORETRY,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
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
from spbfast.model.allocator.record import trace_free
from spbfast.model.holders.swap import count_anon
from spbfast.model.loop.cache_rows import run_cache_row
from spbfast.model.loop.kvmalloc import get_kvmalloc
from spbfast.model.loop.pins import draw_code, has_own_pins
from spbfast.model.loop.single_pages import (
    pin_drawn,
    replace_in_place,
    run_alloc_ahead,
    run_free_ahead,
    serve_run,
)
from spbfast.model.loop.slab_rows import run_slab_row
from spbfast.model.requests.alloc_pages import request, request_thp
from spbfast.model.state.node import Ph
from spbfast.model.state.page_state import code_of, mt_of_code, order_of, state_at
from spbfast.model.state.slots import EMPTY_SLOT
from spbfast.model.state.trace import Th
from spbfast.model.state.vmstat import V
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.gigantic import queue_contig, return_contig

ROW_AHEAD = 12


@kernel
def put_page(w, policy, owner, slot, cpu):
    """Free whatever is in an owner's slot, through the CPU's lists where they take its order."""
    z = w.zone
    pfn = take_slot(z, owner, slot)
    if pfn < 0:
        return
    state = state_at(z.page, pfn)
    order = order_of(state)
    count_anon(z, owner, code_of(state), -(np.int64(1) << order))
    w.node.vm[V.PGFREE] += 1 << order
    w.node.vm[V.PAGE_EVENTS] += 1
    percpu = z.geo.nr_cpus > 0 and is_pcp_order(order)
    if z.trace.head[Th.ON]:
        trace_free(z, pfn, order, cpu, 1 if percpu else 0)
    if percpu:
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
    code = mt if cls & CLS_EXTENT_BUFFER else draw_code(w.node, mt, np.int64(row[Row.OWNER]), slot, 1)
    pfn = request(w, policy, order, mt, cls, cpu)
    if pfn < 0 and row[Row.ALT_ORDER] >= 0:
        order = np.int64(row[Row.ALT_ORDER])
        pfn = request(w, policy, order, mt, cls, cpu)
    if pfn >= 0:
        hand_out(w.zone, pfn, order, code, np.int64(row[Row.OWNER]), slot)
        count_anon(w.zone, np.int64(row[Row.OWNER]), code, np.int64(1) << order)


@kernel
def run_alloc_row(w, policy, row):
    """N requests into consecutive slots."""
    slot = np.int64(row[Row.SLOT])
    end = slot + row[Row.N]
    while slot < end:
        slot += run_alloc_ahead(w, policy, row, slot, end - slot)
        if slot == end:
            break
        if slot_pfn(w.zone, np.int64(row[Row.OWNER]), slot) != EMPTY_SLOT:
            return Err.CORRUPT
        get_page(w, policy, row, slot)
        slot += 1
    return Err.OK


@kernel
def run_free_row(w, policy, row):
    """Free N consecutive slots."""
    owner, slot, cpu = np.int64(row[Row.OWNER]), np.int64(row[Row.SLOT]), np.int64(row[Row.CPU])
    end = slot + row[Row.N]
    while slot < end:
        slot += run_free_ahead(w, policy, row, slot, end - slot)
        if slot == end:
            break
        ahead = slot_pfn(w.zone, owner, min(slot + ROW_AHEAD, end - 1))
        if ahead >= 0:
            prefetch_page(w.zone.page, ahead)
        put_page(w, policy, owner, slot, cpu)
        slot += 1
    return Err.OK


@kernel
def base_page_of(w, policy, row, code, owner, slot):
    """One base page of a huge fault that fell back."""
    pfn = request(w, policy, 0, MOVABLE, np.int64(row[Row.CLS]) & ~CLS_NORETRY, np.int64(row[Row.CPU]))
    if pfn >= 0:
        hand_out(w.zone, pfn, 0, code, owner, slot)
        count_anon(w.zone, owner, code, 1)


@kernel
def fault_base_pages(w, policy, row, code, slot):
    """The base pages of a huge fault that fell back; pinned if the huge page would have been.

    With pins of the actor's own it is each page's cluster that counts.
    """
    owner, cpu = np.int64(row[Row.OWNER]), np.int64(row[Row.CPU])
    end = slot + PB_PAGES
    is_own = has_own_pins(w.node, owner)
    if is_own:
        code = np.int64(MOVABLE)
    while slot < end:
        done = serve_run(w, policy, cpu, np.int64(MOVABLE), code, owner, slot, end - slot)
        if is_own:
            pin_drawn(w, owner, slot, done)
        slot += done
        if slot == end:
            break
        drawn = draw_code(w.node, np.int64(MOVABLE), owner, slot, 1) if is_own else code
        base_page_of(w, policy, row, drawn, owner, slot)
        slot += 1


@kernel
def run_thp_row(w, policy, row):
    """N huge faults; 512 base pages where no huge page is free."""
    owner = np.int64(row[Row.OWNER])
    for i in range(row[Row.N]):
        first = np.int64(row[Row.SLOT]) + i * PB_PAGES
        code = draw_code(w.node, np.int64(MOVABLE), owner, first, PB_PAGES)
        pfn = request_thp(w, policy, np.int64(row[Row.CLS]), np.int64(row[Row.CPU]))
        if pfn >= 0:
            hand_out(w.zone, pfn, PB_ORDER, code, owner, first)
            count_anon(w.zone, owner, code, PB_PAGES)
            continue
        fault_base_pages(w, policy, row, code, first)
    return Err.OK


@kernel
def run_replace_row(w, policy, row):
    """End one lifetime, begin another in the same slot."""
    if replace_in_place(w, policy, row):
        return Err.OK
    slot = np.int64(row[Row.SLOT])
    put_page(w, policy, np.int64(row[Row.OWNER]), slot, np.int64(row[Row.CPU]))
    get_page(w, policy, row, slot)
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
