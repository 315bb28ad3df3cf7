"""Rows of demand that are about file metadata, and where the pages of new slabs come from.

Owns how SLUB asks for pages. Which objects exist is the business of holders/inodes.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLS_KSWAPD,
    CLS_NOMEMALLOC,
    CLS_NORETRY,
    CLS_NOWARN,
    RECLAIMABLE,
    Err,
    Op,
    Row,
)
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.free import hand_out
from spbfast.model.holders.inode_scan import drop_inodes
from spbfast.model.holders.inodes import DONE, POOL_FULL, grow_inodes, skip_object
from spbfast.model.holders.slab import NO_SLOT, add_slab, enter_cpu, free_emptied, next_slab_slot
from spbfast.model.requests.alloc_pages import request
from spbfast.model.state.node import N
from spbfast.model.state.slab_layout import Sc, Si, St
from spbfast.model.state.vmstat import V
from spbfast.model.workers.defer import defer_requests

# SLUB's first attempt at the preferred order: no direct reclaim, no reserves, no retry.
CLS_SLUB_FIRST = CLS_NORETRY | CLS_NOWARN | CLS_NOMEMALLOC


@kernel
def get_slab(w, policy, c, cls, cpu):
    """Pages for a slab of cache c, as SLUB asks: the preferred order lightly, then the least; 0 if none."""
    z, slab = w.zone, w.slab
    mt, owner = slab.cache[c, Sc.MT], slab.cache[c, Sc.OWNER]
    order = slab.cache[c, Sc.ORDER]
    pfn = np.int64(-1)
    if order > slab.cache[c, Sc.MIN_ORDER]:
        wakes = CLS_KSWAPD if w.node.conf[N.SLUB_WAKES] else 0
        pfn = request(w, policy, order, mt, CLS_SLUB_FIRST | wakes, cpu)
        if pfn < 0:
            w.node.vm[V.SLAB_ORDER_FALLBACK] += 1
    if pfn < 0:
        order = slab.cache[c, Sc.MIN_ORDER]
        pfn = request(w, policy, order, mt, cls, cpu)
    enter_cpu(slab, cpu)  # what the requests shrank went elsewhere
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
    enter_cpu(slab, np.int64(row[Row.CPU]))
    drop_inodes(slab, np.int64(row[Row.SLOT]), np.int64(row[Row.N]))
    node.vm[V.PAGE_EVENTS] += free_emptied(w.zone, policy, slab)
    node.vm[V.PGFREE] += slab.stat[St.PAGES_FREED] - pages
    defer_requests(w, policy, RECLAIMABLE)
    return Err.OK


@kernel
def grow_instance(w, policy, inst, nr, cls, cpu):
    """N inodes with all that belongs to them come to a shrinker instance."""
    slab = w.slab
    enter_cpu(slab, cpu)
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
