"""The loop over recorded events: what golden traces and the interactive zone run.

Owns nothing but the mapping from event rows to allocator verbs. One owner holds everything, its slot
is the event's handle.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CMA, MODE_NORMAL, MOVABLE, PB_ORDER, C, Ev
from spbfast.jit.decorators import entry_kernel, inline_kernel, kernel
from spbfast.model.allocator.buddy import free_pieces
from spbfast.model.allocator.free import free_held, hand_out, note_gone, slot_pfn, take_slot
from spbfast.model.allocator.pcp import decay, drain_all, pcp_alloc, pcp_free
from spbfast.model.allocator.pcplist import is_pcp_order
from spbfast.model.allocator.prefetch import PAGE_AHEAD, SLOT_AHEAD, prefetch_page, prefetch_slot
from spbfast.model.allocator.rmqueue import begin_event, rmqueue_in_mode
from spbfast.model.allocator.settle import settle_spb
from spbfast.model.state.page_state import (
    CODE_CONTIG,
    CODE_MOVABLE,
    CODE_OFF_LRU,
    CODE_PINNED,
    code_of,
    mt_of_code,
    order_of,
    set_state,
    state_at,
    used_state,
)
from spbfast.model.workers.compact_within import compact_spb
from spbfast.model.workers.contig import alloc_contig, free_contig
from spbfast.model.workers.defrag import defrag_spb
from spbfast.model.workers.evacuate import evacuate_for_order

ALLOC, FREE, BULK_FIRST, BULK_NEXT, DRAIN, DECAY, EVACUATE, DEFRAG, CONTIG, COMPACT = range(10)
# Columns of an event row.
E_OP, E_HANDLE, E_ORDER, E_MT, E_FLAGS, E_ARG = range(6)
E_CPU = E_ARG  # of requests, frees and what is done to per-CPU lists
NR_EVENT_FIELDS = 6
# Columns of a result row.
(
    R_PFN,
    R_OUTCOME,
    R_VISITED,
    R_VISITED_FALLBACK,
    R_TAINTED,
    R_REQUESTS,
    R_NR_DEFRAG,
    R_MOVED,
    R_NR_SAME_TYPE,
    R_NR_PAGEBLOCKS,
) = range(10)
NR_RESULT_FIELDS = 10
NR_BRIEF_FIELDS = 2  # pfn and outcome: rows of traces that record no more
NOT_AN_ALLOCATION = -2
ROW_MAX = (1 << 31) - 1  # rows are int32; in a result it stands for what would not fit (replay_rows.py)


@inline_kernel
def wide(event, column):
    """A column of an event row."""
    return np.int64(event[column])


@inline_kernel
def narrow(value):
    """A count as a result row holds it."""
    return min(value, ROW_MAX)


@entry_kernel
def boot_zone(z, policy, chunks):
    """Release boot memory, chunk by chunk to the lists' tails, then settle every superpageblock."""
    for i in range(chunks.shape[0]):
        free_pieces(z, chunks[i, 0], chunks[i, 1], True)
    for spb in range(z.geo.nr_spb):
        settle_spb(z, policy, spb)
    z.ev[:] = 0


@entry_kernel
def boot_cma(z, policy, first_pb, nr_pb):
    """Make pageblocks CMA and release them, ascending, as order-9 blocks to the lists' heads."""
    for pb in range(first_pb, first_pb + nr_pb):
        z.pb.label[pb] = CMA
        free_pieces(z, pb << PB_ORDER, PB_ORDER, False)
    for spb in range(z.geo.nr_spb):
        settle_spb(z, policy, spb)
    z.ev[:] = 0


@inline_kernel
def code_of_handle(mt, handle, pin_modulus, pin_remainder):
    """Code of a block handed out for a request of type mt."""
    if mt == MOVABLE and pin_modulus > 0 and handle % pin_modulus == pin_remainder:
        return CODE_PINNED
    return mt


@kernel
def run_alloc(z, policy, event, pins, off_lru):
    """One ALLOC event; page index or -1."""
    order, mt, flags = wide(event, E_ORDER), wide(event, E_MT), wide(event, E_FLAGS)
    handle = wide(event, E_HANDLE)
    if z.geo.nr_cpus > 0 and is_pcp_order(order):
        pfn = pcp_alloc(z, policy, wide(event, E_CPU), order, mt, flags)
    else:
        pfn = rmqueue_in_mode(z, policy, order, mt, flags, z.ev[Ev.MODE])
    if pfn >= 0:
        code = code_of_handle(mt, handle, pins[0], pins[1])
        if off_lru and mt == MOVABLE:
            code = CODE_OFF_LRU
        hand_out(z, pfn, order, code, 0, handle)
        if code == CODE_OFF_LRU:
            z.ev[Ev.OFF_LRU] += 1 << order
    return pfn


@kernel
def run_free(z, policy, handle, cpu):
    """One FREE event on a CPU; nothing if the handle holds nothing, as after a request that failed."""
    pfn = slot_pfn(z, 0, handle)
    if pfn < 0:
        return
    state = state_at(z.page, pfn)
    order = order_of(state)
    code = code_of(state)
    take_slot(z, 0, handle)
    if code == CODE_CONTIG:
        free_contig(z, policy, pfn)
    elif z.geo.nr_cpus > 0 and is_pcp_order(order):
        note_gone(z, pfn, order, code)
        pcp_free(z, policy, cpu, pfn, order, mt_of_code(code))
    else:
        free_held(z, policy, pfn)


@kernel
def run_bulk(z, policy, events, first, pins, out):
    """A bulk group beginning at row `first`: requests that share a mode; rows until its end."""
    nr = 1
    while first + nr < events.shape[0] and wide(events[first + nr], E_OP) == BULK_NEXT:
        nr += 1
    z.ev[Ev.MODE] = MODE_NORMAL
    alive = True
    for i in range(first, first + nr):
        pfn = run_alloc(z, policy, events[i], pins, True) if alive else np.int64(-1)
        alive = pfn >= 0
        out[i, R_PFN] = pfn - z.geo.lo if alive else -1
    for i in range(first, first + nr):
        if out[i, R_PFN] >= 0 and wide(events[i], E_MT) == MOVABLE:
            state = used_state(CODE_MOVABLE, wide(events[i], E_ORDER))
            set_state(z.page, np.int64(out[i, R_PFN]) + z.geo.lo, state)
    return nr


@kernel
def run_other(z, policy, event):
    """DRAIN, DECAY, EVACUATE, DEFRAG or COMPACT; 1 if it did something, or the pageblocks it freed."""
    op = wide(event, E_OP)
    if op == DRAIN:
        drain_all(z, policy, wide(event, E_CPU))
    elif op == DECAY:
        decay(z, policy, wide(event, E_CPU))
    elif op == EVACUATE:
        return evacuate_for_order(z, policy, wide(event, E_ORDER), wide(event, E_MT))
    elif op == DEFRAG:
        return defrag_spb(z, policy, wide(event, E_ARG))
    elif op == COMPACT:
        order, mt, flags = wide(event, E_ORDER), wide(event, E_MT), wide(event, E_FLAGS)
        return compact_spb(z, policy, wide(event, E_ARG), order, mt, flags)
    return 0


@kernel
def run_event(z, policy, events, i, pins, out):
    """One event other than a bulk group."""
    op = wide(events[i], E_OP)
    out[i, R_PFN] = NOT_AN_ALLOCATION
    if op == ALLOC or op == CONTIG:
        if op == ALLOC:
            pfn = run_alloc(z, policy, events[i], pins, False)
        else:
            pfn = alloc_contig(z, policy, 0, wide(events[i], E_HANDLE))
        out[i, R_PFN] = pfn - z.geo.lo if pfn >= 0 else -1
        out[i, R_OUTCOME] = z.ev[Ev.OUTCOME] if op == ALLOC or pfn >= 0 else 0
    elif op == FREE:
        run_free(z, policy, wide(events[i], E_HANDLE), wide(events[i], E_CPU))
    else:
        out[i, R_OUTCOME] = narrow(run_other(z, policy, events[i]))


@inline_kernel
def record_result(z, out, i):
    """Copy what the event did to its result row."""
    out[i, R_VISITED] = narrow(z.ev[Ev.VISITED])
    out[i, R_VISITED_FALLBACK] = narrow(z.ev[Ev.VISITED_FALLBACK])
    out[i, R_TAINTED] = narrow(z.count[C.TAINTED_SPBS])
    out[i, R_REQUESTS] = narrow(z.ev[Ev.REQUESTS])
    out[i, R_NR_DEFRAG] = narrow(z.ev[Ev.NR_DEFRAG])
    out[i, R_MOVED] = narrow(z.ev[Ev.MOVED_PAGES])
    out[i, R_NR_SAME_TYPE] = narrow(z.ev[Ev.NR_SAME_TYPE])
    out[i, R_NR_PAGEBLOCKS] = narrow(z.ev[Ev.NR_PAGEBLOCKS])


@inline_kernel
def look_ahead_events(z, events, i):
    """Ask for the slot of a later row, and for the page that a nearer row may free."""
    if i + SLOT_AHEAD < events.shape[0]:
        prefetch_slot(z.slots, 0, max(wide(events[i + SLOT_AHEAD], E_HANDLE), 0))
        prefetch_page(z.page, slot_pfn(z, 0, max(wide(events[i + PAGE_AHEAD], E_HANDLE), 0)))


@entry_kernel
def run_events(z, policy, events, first, last, pins, out):
    """Run rows first..last-1 of `events` (int32, NR_EVENT_FIELDS); results to the same rows of `out`.

    `out` has NR_RESULT_FIELDS columns, or NR_BRIEF_FIELDS: then the others are not written. `pins` is
    (modulus, remainder) of the handles that pin movable blocks. A range never ends inside a bulk group.
    """
    i = first
    while i < last:
        look_ahead_events(z, events, i)
        begin_event(z, i)
        if wide(events[i], E_OP) == BULK_FIRST:
            i += run_bulk(z, policy, events, i, pins, out)
        else:
            run_event(z, policy, events, i, pins, out)
            if out.shape[1] == NR_RESULT_FIELDS:
                record_result(z, out, i)
            i += 1
