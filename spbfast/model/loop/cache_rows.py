"""Rows of demand that are about the page cache, and how a folio enters it.

Rows name no slots of folios: the page cache knows where they are (holders/pagecache.py).
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    MOVABLE,
    Err,
    Op,
    Row,
)
from spbfast.jit.decorators import kernel
from spbfast.model.holders.pagecache import add_folio, has_room, nr_folios, take_folio
from spbfast.model.requests.alloc_pages import request
from spbfast.model.state.node import OWNER_COLD
from spbfast.model.state.vmstat import V
from spbfast.model.workers.defer import defer_requests


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
