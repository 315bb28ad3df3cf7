"""Rows of single pages, in runs where a CPU's lists serve them and nothing else happens.

Owns the conditions under which a request or a free is nothing but that: no request of the event before is
waiting, free memory is above the low watermark. Whatever a run leaves undone is for execute.py, page by page,
with the same result (allocator/pcprun.py).
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLS_EXTENT_BUFFER, CLS_KVMALLOC, MOVABLE, Ev, Row
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import hand_out, slot_pfn
from spbfast.model.allocator.pcprun import (
    free_and_retake,
    free_run_to_pcp,
    has_runs,
    is_given_back,
    take_run_from_pcp,
)
from spbfast.model.holders.swap import count_anon
from spbfast.model.loop.pins import draw_code, may_be_pinned
from spbfast.model.requests.attempt import is_above, note_below_high
from spbfast.model.state.node import N
from spbfast.model.state.page_state import CODE_PINNED
from spbfast.model.state.vmstat import V


@inline_kernel
def is_served_at_once(w, policy, mt):
    """Whether a request for a single page goes to a CPU's lists and leaves nothing to be done."""
    note_below_high(w, policy, 0, mt)
    return w.zone.ev[Ev.REQUESTS] == 0 and is_above(w, policy, 0, mt, w.node.conf[N.WMARK_LOW])


@inline_kernel
def count_served(w, nr):
    """Count `nr` single pages that a CPU's lists served: the zone's lists were asked nothing."""
    w.zone.ev[Ev.OUTCOME] = 0
    w.zone.ev[Ev.NR_TAINTS] = 0
    w.node.vm[V.PGALLOC_NORMAL] += nr
    w.node.vm[V.PAGE_EVENTS] += nr


@kernel
def serve_run(w, policy, cpu, mt, code, owner, slot, nr):
    """Serve up to `nr` requests for single pages of type mt into consecutive slots; how many."""
    if not has_runs(w.zone, policy) or not is_served_at_once(w, policy, mt):
        return np.int64(0)
    done = take_run_from_pcp(w.zone, cpu, mt, code, owner, slot, nr)
    if done:
        count_served(w, done)
        count_anon(w.zone, owner, code, done)
    return done


@kernel
def pin_drawn(w, owner, slot, nr):
    """Pin the drawn share of `nr` movable pages that were just served."""
    for i in range(slot, slot + nr):
        if draw_code(w.node, np.int64(MOVABLE), owner, i, 1) == CODE_PINNED:
            hand_out(w.zone, slot_pfn(w.zone, owner, i), 0, CODE_PINNED, owner, i)
            count_anon(w.zone, owner, np.int64(MOVABLE), -1)


@inline_kernel
def has_single_pages(row):
    """Whether a row asks for single pages that are nothing but that."""
    return row[Row.ORDER] == 0 and not row[Row.CLS] & (CLS_KVMALLOC | CLS_EXTENT_BUFFER)


@kernel
def run_alloc_ahead(w, policy, row, slot, nr):
    """Serve requests of an ALLOC row from `slot` on in a run; how many."""
    if not has_single_pages(row):
        return np.int64(0)
    mt, owner = np.int64(row[Row.MT]), np.int64(row[Row.OWNER])
    done = serve_run(w, policy, np.int64(row[Row.CPU]), mt, mt, owner, slot, nr)
    if may_be_pinned(w.node, mt, owner):
        pin_drawn(w, owner, slot, done)
    return done


@kernel
def run_free_ahead(w, policy, row, slot, nr):
    """Free pages of a FREE row from `slot` on in a run; slots done with.

    Where slots may be in swap there are no runs: each is looked at by itself.
    """
    at = w.zone.slots.base[np.int64(row[Row.OWNER])] + slot
    if w.zone.ev[Ev.REQUESTS] or w.zone.slots.anon[np.int64(row[Row.OWNER])]:
        return np.int64(0)
    done, freed = free_run_to_pcp(w.zone, policy, np.int64(row[Row.CPU]), at, nr)
    w.node.vm[V.PGFREE] += freed
    w.node.vm[V.PAGE_EVENTS] += freed
    return done


@inline_kernel
def replace_in_place(w, policy, row):
    """Where a REPLACE row gets the page back that it frees, leave it there; whether that was so."""
    z = w.zone
    cpu, mt = np.int64(row[Row.CPU]), np.int64(row[Row.MT])
    owner, slot = np.int64(row[Row.OWNER]), np.int64(row[Row.SLOT])
    pfn = slot_pfn(z, owner, slot)
    if pfn < 0 or z.slots.anon[owner] or not has_single_pages(row):
        return False
    if not is_served_at_once(w, policy, mt):
        return False
    if not is_given_back(z, policy, cpu, pfn, mt):
        return False
    free_and_retake(z, cpu, pfn, draw_code(w.node, mt, owner, slot, 1), owner, slot)
    count_served(w, 1)
    w.node.vm[V.PGFREE] += 1
    w.node.vm[V.PAGE_EVENTS] += 1
    return True
