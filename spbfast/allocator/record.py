"""Event records: bounded, preallocated, written only where the caller gave them room."""

from __future__ import annotations

import numpy as np

from spbfast._jit import kernel
from spbfast.constants import PB_ORDER, RECORD_EXTFRAG, RECORD_MOVE, C, Ev


@kernel
def record_extfrag(z, pfn, order, fallback_order, mt, fallback_mt):
    """mm_page_alloc_extfrag: a block was handed out from another type's list."""
    z.count[C.EXTFRAG] += 1
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
