"""Event records: bounded, preallocated, written only where the caller gave them room.

Owns what a record of each kind holds. `z.records` are the logs of golden files; `z.trace` are the tracepoints
that a user asked for (state/trace.py), in buffers of their own that keep the first records of each kind.
Where a tracepoint lies on the page path its caller tests `is_traced` before it calls; the others test inside.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    COSTLY_ORDER,
    LIST_TAINTED,
    MOVABLE,
    NR_BUCKETS,
    NR_MT,
    NR_REQUEST_MT,
    PB_ORDER,
    RECORD_EXTFRAG,
    RECORD_MOVE,
    C,
    Ev,
    Outcome,
    Tp,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.pick import is_live
from spbfast.model.state.node import Now
from spbfast.model.state.trace import TALLY_FELL_THROUGH, TALLY_POLLUTE, TALLY_REFUSED, TALLY_STEAL, Th


@kernel
def record_extfrag(z, pfn, order, fallback_order, mt, fallback_mt):
    """mm_page_alloc_extfrag: a block was handed out from another type's list."""
    z.count[C.EXTFRAG] += 1
    trace_extfrag(z, pfn, order, fallback_order, mt, fallback_mt)
    i = z.count[C.NR_RECORDS]
    if i >= z.records.shape[0]:
        return
    z.count[C.NR_RECORDS] = i + 1
    row = z.records[i]
    row[0] = RECORD_EXTFRAG
    row[1] = z.ev[Ev.ROW]
    row[2] = pfn - z.geo.lo
    row[3] = order
    row[4] = fallback_order
    row[5] = mt
    row[6] = fallback_mt
    row[7] = 1 if np.int64(z.pb.label[pfn >> PB_ORDER]) == mt else 0
    row[8] = 1 if fallback_order < PB_ORDER else 0


@kernel
def record_move(z, slot, pfn):
    """A block was migrated: its owner's slot and its new place."""
    i = z.count[C.NR_RECORDS]
    if i >= z.records.shape[0]:
        return
    z.count[C.NR_RECORDS] = i + 1
    row = z.records[i]
    row[0] = RECORD_MOVE
    row[1] = z.ev[Ev.ROW]
    row[2] = slot
    row[3] = pfn - z.geo.lo


# --- tracepoints ----------------------------------------------------------------------------------


@inline_kernel
def is_traced(z, kind):
    """Whether records of a kind are kept."""
    return (z.trace.head[Th.ON] >> kind) & 1 != 0


@kernel
def write_record(t, kind, a, b, c, d, e, f, g, h):
    """Keep a record of a kind that is traced, or count it as met if its buffer is full."""
    nr = t.nr[kind]
    t.nr[kind] = nr + 1
    seq = t.head[Th.SEQ]
    t.head[Th.SEQ] = seq + 1
    if nr >= t.rows.shape[1]:
        return
    row = t.rows[t.where[kind], nr]
    row[0], row[1], row[2] = t.clock[Now.NS], seq, t.zone[0]
    row[3], row[4], row[5], row[6] = a, b, c, d
    row[7], row[8], row[9], row[10] = e, f, g, h


@kernel
def trace_taint(z, pb, mt, is_set, nr_left):
    """spb_pb_taint: a content bit was set or cleared; `nr_left` pageblocks of its superpageblock have it."""
    if is_traced(z, Tp.SPB_PB_TAINT):
        first_or_last = 1 if nr_left == is_set else 0
        write_record(z.trace, Tp.SPB_PB_TAINT, pb << PB_ORDER, mt, is_set, first_or_last, 0, 0, 0, 0)


@kernel
def trace_refused(z, pfn, mt, label, reason):
    """spb_claim_block_refused: the pageblock of a free block may not be turned."""
    z.tally[TALLY_REFUSED + reason] += 1
    if is_traced(z, Tp.SPB_CLAIM_BLOCK_REFUSED):
        write_record(z.trace, Tp.SPB_CLAIM_BLOCK_REFUSED, pfn, mt, label, reason, 0, 0, 0, 0)


@kernel
def trace_evacuated(z, order, mt, nr_same_type, nr_pageblocks, did):
    """spb_evacuate_for_order_done: attempts of both phases."""
    if is_traced(z, Tp.SPB_EVACUATE_FOR_ORDER_DONE):
        write_record(
            z.trace, Tp.SPB_EVACUATE_FOR_ORDER_DONE, order, mt, nr_same_type, nr_pageblocks, did, 0, 0, 0
        )


@kernel
def trace_relax(z, order, mt, cls, step):
    """spb_alloc_atomic_relax: a caller that cannot block gives up or relaxes its request."""
    if is_traced(z, Tp.SPB_ALLOC_ATOMIC_RELAX):
        write_record(z.trace, Tp.SPB_ALLOC_ATOMIC_RELAX, order, mt, cls, step, 0, 0, 0, 0)


@kernel
def steps_of_walk(z):
    """Superpageblocks that the walk which just ended stepped on: the event's steps since the last walk."""
    visited = z.ev[Ev.VISITED]
    before = z.trace.head[Th.WALK_VISITED] if z.trace.head[Th.WALK_EVENT] == z.ev[Ev.SEQ] else np.int64(0)
    z.trace.head[Th.WALK_EVENT] = z.ev[Ev.SEQ]
    z.trace.head[Th.WALK_VISITED] = visited
    return visited - before


@kernel
def trace_locked(z, pfn, order, mt):
    """mm_page_alloc_zone_locked: a block was taken off the lists of its own type."""
    if is_traced(z, Tp.MM_PAGE_ALLOC_ZONE_LOCKED):
        refill = 1 if order <= COSTLY_ORDER or order == PB_ORDER else 0
        write_record(z.trace, Tp.MM_PAGE_ALLOC_ZONE_LOCKED, pfn, order, mt, refill, 0, 0, 0, 0)


@kernel
def trace_alloc(z, pfn, order, mt, cpu):
    """mm_page_alloc: a caller on a CPU got a block."""
    if is_traced(z, Tp.MM_PAGE_ALLOC):
        write_record(z.trace, Tp.MM_PAGE_ALLOC, pfn, order, mt, cpu, 0, 0, 0, 0)


@kernel
def trace_free(z, pfn, order, cpu, percpu):
    """mm_page_free: an owner gives a block back, to a CPU's lists (`percpu` 1) or past them."""
    if is_traced(z, Tp.MM_PAGE_FREE):
        write_record(z.trace, Tp.MM_PAGE_FREE, pfn, order, cpu, percpu, 0, 0, 0, 0)


@kernel
def trace_move(z, pfn, order, new):
    """A movable block gets a new place, straight off the lists: an allocation, and the free of the old place.

    Model: compaction in the kernel isolates what is free and leaves no mm_page_alloc.
    """
    if is_traced(z, Tp.MM_PAGE_ALLOC):
        write_record(z.trace, Tp.MM_PAGE_ALLOC, new, order, MOVABLE, 0, 1, 0, 0, 0)
    trace_free(z, pfn, order, 0, 0)


@kernel
def trace_walk(z, order, mt, flags, pfn):
    """spb_alloc_walk: the ladder short of claim and steal gave `pfn`, or -1."""
    if pfn >= 0:
        trace_locked(z, pfn, order, mt)
    if is_traced(z, Tp.SPB_ALLOC_WALK):
        outcome = z.ev[Ev.OUTCOME] if pfn >= 0 else np.int64(0)
        write_record(z.trace, Tp.SPB_ALLOC_WALK, order, mt, flags, outcome, steps_of_walk(z), 0, 0, 0)


@kernel
def trace_mainline(z, pfn, order, mt):
    """What a request without superpageblocks leaves: a block of its own type's lists, or none."""
    if z.ev[Ev.OUTCOME] != Outcome.STEAL_FALLBACK:
        trace_locked(z, pfn, order, mt)


@kernel
def look_for_missed(z, order, mt):
    """Tainted superpageblocks: how many could serve from own-type lists, whether one has free pages."""
    nr = 0
    saw_pages = 0
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        for slot in range(z.index.tail[lst]):
            if is_live(z.index, lst, slot):
                spb = np.int64(z.index.spb[lst, slot])
                saw_pages |= 1 if z.spb.nr_free_pages[spb] > 0 else 0
                nr += 1 if np.int64(z.area.mask[spb * NR_MT + mt]) >> order else 0
    return nr, saw_pages


@kernel
def trace_fall_through(z, order, mt):
    """spb_alloc_fall_through: no tainted superpageblock could serve a non-movable request."""
    z.tally[TALLY_FELL_THROUGH] += 1
    if is_traced(z, Tp.SPB_ALLOC_FALL_THROUGH):
        missed, saw_pages = look_for_missed(z, order, mt)
        free_pb, below = z.ev[Ev.SAW_FREE_PB], z.ev[Ev.SAW_BELOW]
        tainted = z.count[C.TAINTED_SPBS]
        write_record(
            z.trace, Tp.SPB_ALLOC_FALL_THROUGH, order, mt, tainted, missed, saw_pages, free_pb, below, 0
        )


@kernel
def trace_extfrag(z, pfn, order, fallback_order, mt, fallback_mt):
    """mm_page_alloc_extfrag: a claim or a steal was served from another type's list."""
    if is_traced(z, Tp.MM_PAGE_ALLOC_EXTFRAG):
        fragmenting = 1 if fallback_order < PB_ORDER else 0
        changed = 1 if np.int64(z.pb.label[pfn >> PB_ORDER]) == mt else 0
        write_record(
            z.trace,
            Tp.MM_PAGE_ALLOC_EXTFRAG,
            pfn,
            order,
            fallback_order,
            mt,
            fallback_mt,
            fragmenting,
            changed,
            0,
        )


@inline_kernel
def trace_drained(z, pfn, order, mt):
    """mm_page_pcpu_drain: a block left a per-CPU list for the zone's; the caller tests `is_traced`."""
    write_record(z.trace, Tp.MM_PAGE_PCPU_DRAIN, pfn, order, mt, 0, 0, 0, 0, 0)


@kernel
def trace_shrink_run(z, passes, last_prio, scanned, freed, slab_pages, pageblocks, cost_ns):
    """spb_slab_shrink_run (ours): what one run of the shrink worker did."""
    if is_traced(z, Tp.SPB_SLAB_SHRINK_RUN):
        node = z.trace.zone[0]  # zones Normal are numbered as their nodes
        write_record(
            z.trace,
            Tp.SPB_SLAB_SHRINK_RUN,
            node,
            passes,
            last_prio,
            scanned,
            freed,
            slab_pages,
            pageblocks,
            cost_ns,
        )


@kernel
def tally_steal(z, mt, other):
    """A pageblock of another type was turned to serve a request."""
    if mt < NR_REQUEST_MT and other < NR_REQUEST_MT:
        z.tally[TALLY_STEAL + NR_REQUEST_MT * mt + other] += 1


@kernel
def tally_pollute(z, mt, other):
    """A block of another type's list served a request; its pageblock keeps its type."""
    if mt < NR_REQUEST_MT and other < NR_REQUEST_MT:
        z.tally[TALLY_POLLUTE + NR_REQUEST_MT * mt + other] += 1
